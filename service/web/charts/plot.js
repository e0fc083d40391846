// Observable Plot under a strict policy, at the width of the place it stands in.

const { Plot } = globalThis;

/** The colours of components; they come round again after the eighth. */
export const COLOURS = Array.from({ length: 8 }, (_, k) => `var(--c${k})`);

/** Returns the colour of component k. */
export function colour(k) {
  return COLOURS[k % COLOURS.length];
}

/**
 * Returns a chart that is drawn again when its width changes.
 * @param {string} label what a screen reader says
 * @param {(width: number) => object} options of Plot.plot
 */
export function chart(label, options) {
  const place = document.createElement("div");
  place.className = "chart";
  let width = 0;
  place.redraw = () => { if (width > 0) place.replaceChildren(drawn(label, options(width))); };
  new ResizeObserver(([{ contentRect }]) => {
    const now = Math.round(contentRect.width);
    if (now === width) return;
    width = now;
    requestAnimationFrame(place.redraw);
  }).observe(place);
  return place;
}

function drawn(label, options) {
  // Plot writes a style element into its drawing. In a document without a window it is never applied, and so
  // never refused by the policy; styles/content.css says the same.
  const inert = document.implementation.createHTMLDocument("");
  const drawing = { documentElement: inert.documentElement, defaultView: window };
  const svg = Plot.plot({ document: drawing, marginLeft: 52, marginBottom: 38, ...options });
  svg.querySelector("style")?.remove();
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  for (const part of svg.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label");
  return svg;
}

/** Returns axes and a quiet grid. */
export function grid() {
  const look = { stroke: "var(--line)", strokeOpacity: 1 };
  return [Plot.gridX(look), Plot.gridY(look)];
}
