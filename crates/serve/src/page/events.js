// Server-sent events: bytes in, events out.

export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { name: "message", data: [] };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data.length > 0) yield { name: event.name, data: event.data.join("\n") };
          event = { name: "message", data: [] };
        } else {
          take(event, line);
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // The stream has failed already; whoever reads knows why.
  }
}

function take(event, line) {
  const colon = line.indexOf(":");
  if (colon === 0) return; // a comment: the server shows that it is still there
  const field = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (field === "data") event.data.push(value);
  if (field === "event") event.name = value;
}
