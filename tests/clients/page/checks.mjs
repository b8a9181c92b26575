// What can be checked of a page without looking at it: names, references, contrast.

const CONTROLS = new Set([
  "button", "radio", "slider", "spinbutton", "textbox", "combobox", "listbox", "option", "link", "checkbox", "region", "form", "navigation",
]);

/** Controls, landmarks and tokens without a name, as assistive technology sees them. */
export async function namelessControls(page) {
  const session = await page.context().newCDPSession(page);
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  await session.detach();
  return nodes
    .filter((node) => !node.ignored && CONTROLS.has(node.role?.value) && !node.name?.value?.trim())
    .map((node) => node.role.value);
}

/** Ids that occur twice, and attributes that name an id that is not there. */
export function brokenReferences(page) {
  return page.evaluate(() => {
    const broken = [];
    const seen = new Set();
    for (const node of document.querySelectorAll("[id]")) {
      if (seen.has(node.id)) broken.push(`twice: ${node.id}`);
      seen.add(node.id);
    }
    for (const name of ["for", "aria-labelledby", "aria-describedby", "aria-controls"]) {
      for (const node of document.querySelectorAll(`[${name}]`)) {
        for (const id of node.getAttribute(name).split(/\s+/)) if (!seen.has(id)) broken.push(`${name}: ${id}`);
      }
    }
    for (const link of document.querySelectorAll('a[href^="#"]')) {
      if (!seen.has(link.getAttribute("href").slice(1))) broken.push(`link: ${link.getAttribute("href")}`);
    }
    return broken;
  });
}

/** Texts that stand out less than `least` to 1 from what is behind them. Disabled controls are exempt. */
export function contrasts(page, least) {
  return page.evaluate((wanted) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const bytes = (colour, below) => {
      context.clearRect(0, 0, 1, 1);
      if (below) {
        context.fillStyle = `rgb(${below.join(" ")})`;
        context.fillRect(0, 0, 1, 1);
      }
      context.fillStyle = colour;
      context.fillRect(0, 0, 1, 1);
      return [...context.getImageData(0, 0, 1, 1).data];
    };
    const behind = (node) => {
      const colours = [];
      for (let at = node; at; at = at.parentElement) colours.push(getComputedStyle(at).backgroundColor);
      return colours.reverse().reduce((below, colour) => bytes(colour, below).slice(0, 3), [255, 255, 255]);
    };
    const light = (rgb) => {
      const [r, g, b] = rgb.map((byte) => byte / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const low = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode.parentElement;
      if (!walker.currentNode.textContent.trim() || !node.checkVisibility()) continue;
      if (node.closest("script, noscript, .away, :disabled, .skip")) continue;
      const below = behind(node);
      const above = bytes(getComputedStyle(node).color, below).slice(0, 3);
      const [a, b] = [light(above), light(below)].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < wanted) low.push(`${ratio.toFixed(2)}: ${walker.currentNode.textContent.trim().slice(0, 40)}`);
    }
    return low;
  }, least);
}
