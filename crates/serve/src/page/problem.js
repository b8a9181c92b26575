// Every failure becomes a sentence that a person can act on.

export class Problem extends Error {
  constructor(sentence, { status = 0, code = null } = {}) {
    super(sentence);
    this.name = "Problem";
    this.status = status;
    this.code = code;
  }
}

/** The failure of a request that got no reply. */
export function silence() {
  return new Problem("The server does not answer. Is offramp serve still running? Start it, then try again.");
}

/** The failure of a stream that ended before its last line. */
export function brokenOff() {
  return new Problem("The answer broke off before its end. The server may have stopped. Please try again.");
}

/** The failure that a stream reported in its middle. */
export function midway(error) {
  return new Problem(`The server gave up in the middle of the text. ${finished(error?.message)}`, { code: error?.code });
}

/** The failure that a reply with this status tells of. */
export async function fromReply(reply) {
  const error = await readError(reply);
  const said = finished(error.message);
  return new Problem(sentence(reply, error.code, said), { status: reply.status, code: error.code });
}

function sentence(reply, code, said) {
  switch (reply.status) {
    case 400:
      return code === "context_length_exceeded"
        ? `That text is too long. ${said}`
        : `The server cannot do that. ${said}`;
    case 401:
      return "This server wants a key. Type it into the field for the key, then try again.";
    case 403:
      return `The server does not accept requests from this address. ${said}`;
    case 404:
    case 405:
      return `This server does not offer that. ${said}`;
    case 413:
      return `The text is too long to send. ${said}`;
    case 429:
      return `The server is busy with other texts. ${later(reply)}`;
    case 503:
      return `The server is not ready. ${said} ${later(reply)}`;
    default:
      return `The server failed with status ${reply.status}. ${said}`;
  }
}

function later(reply) {
  const seconds = Number(reply.headers.get("retry-after"));
  if (!(seconds > 0)) return "Please try again soon.";
  return `Please try again in ${seconds} ${seconds === 1 ? "second" : "seconds"}.`;
}

async function readError(reply) {
  try {
    const body = await reply.json();
    return typeof body.error === "string" ? { message: body.error } : (body.error ?? {});
  } catch {
    return {}; // A reply without JSON says nothing more.
  }
}

/** A message as a sentence: with a capital first and a full stop last. */
function finished(message) {
  const text = (message ?? "").trim();
  if (!text) return "It did not say why.";
  const capital = /^[a-z]+(?=[\s,.:;]|$)/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}

/** Shows a failure in its place, or clears the place. A stop that the reader asked for is none. */
export function show(place, error) {
  if (error?.name === "AbortError") return;
  if (error && !(error instanceof Problem)) console.error(error);
  place.textContent = !error ? "" : error instanceof Problem ? error.message : `The page made a mistake: ${finished(error.message)}`;
}
