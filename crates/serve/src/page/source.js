// A text that the lens can look through: the ids of its prompt, which are asked for once, and its new tokens.

export class Source {
  #ask;
  #prompt = null;

  constructor(tokens, ask) {
    this.tokens = tokens;
    this.#ask = ask;
  }

  /** The ids of the prompt. A failure is not kept, so that the next call asks again. */
  async prompt() {
    this.#prompt ??= this.#ask();
    try {
      return await this.#prompt;
    } catch (error) {
      this.#prompt = null;
      throw error;
    }
  }
}
