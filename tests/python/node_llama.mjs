// Continues prompts greedily with the llama.cpp that comes prebuilt with node-llama-cpp, and prints JSON: the texts, and
// which llama.cpp it is.
//
//     node node_llama.mjs FOLDER-OF-NODE-LLAMA-CPP MODEL.gguf TOKENS PROMPT…
//
// The package lies in a work folder of its own, where node would not look for it.

import path from "node:path"
import { pathToFileURL } from "node:url"

const [folder, modelPath, tokens, ...prompts] = process.argv.slice(2)
const entry = path.join(path.resolve(folder), "dist", "index.js")
const { getLlama } = await import(pathToFileURL(entry).href)

const llama = await getLlama({ build: "never", gpu: false, logLevel: "error" })
const model = await llama.loadModel({ modelPath, gpuLayers: 0 })
// One thread waits for no other on a busy machine. Unless it is told otherwise, llama.cpp keeps and
// attends to keys and values in f16, which decides where two tokens are as likely as each other.
const context = await model.createContext({
  contextSize: 256,
  threads: 1,
  flashAttention: false,
  experimentalKvCacheKeyType: "F32",
  experimentalKvCacheValueType: "F32",
})
const sequence = context.getSequence()

async function continued(prompt) {
  await sequence.clearHistory()
  const begin = model.tokens.shouldPrependBosToken ? [model.tokens.bos] : []
  const found = []
  for await (const token of sequence.evaluate([...begin, ...model.tokenize(prompt)], { temperature: 0 })) {
    if (model.isEogToken(token)) break
    found.push(token)
    if (found.length === Number(tokens)) break
  }
  return model.detokenize(found)
}

const texts = []
for (const prompt of prompts) texts.push(await continued(prompt))
console.log(JSON.stringify({ texts, llama: llama.llamaCppRelease.release }))
process.exit(0)
