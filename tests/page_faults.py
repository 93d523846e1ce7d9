"""What of a page in a browser keeps somebody from reading or using it. Not a test itself."""

from playwright.sync_api import Page

LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3
LEAST_TARGET = 44  # CSS pixels, for a finger

_FIND = """
([leastContrast, leastTarget]) => {
  const faults = [], all = [...document.querySelectorAll("body *")];
  const named = (e) => `${e.tagName.toLowerCase()}${e.id ? "#" + e.id : ""} ` +
    `${e.textContent.trim().slice(0, 30)}`;
  const shown = (e) => e.checkVisibility({ visibilityProperty: true });

  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) {
    const wide = all.filter((e) => e.getBoundingClientRect().right > root.clientWidth + 1);
    faults.push(`${root.scrollWidth} pixels wide: ${wide.slice(0, 3).map(named).join(", ")}`);
  }
  const ids = all.map((e) => e.id).filter(Boolean);
  for (const id of new Set(ids))
    if (ids.filter((other) => other === id).length > 1) faults.push(`id doubled: ${id}`);
  for (const e of document.querySelectorAll("th"))
    if (!["col", "row"].includes(e.scope)) faults.push(`no scope: ${named(e)}`);
  for (const e of document.querySelectorAll("table"))
    if (!e.caption?.textContent.trim()) faults.push(`no caption: ${named(e)}`);
  for (const e of document.querySelectorAll("img"))
    if (!e.alt.trim()) faults.push(`no alt: ${named(e)}`);
  for (const e of document.querySelectorAll("canvas"))
    if (!e.ariaLabel && !e.closest("[aria-label]")) faults.push(`no label: ${named(e)}`);
  let level = 0;
  for (const e of document.querySelectorAll("h1, h2, h3, h4")) {
    const next = Number(e.tagName[1]);
    if (next > level + 1) faults.push(`a heading skipped: ${named(e)}`);
    level = next;
  }
  for (const e of all) {
    const style = getComputedStyle(e);
    const scrolls = [[style.overflowX, e.scrollWidth - e.clientWidth],
      [style.overflowY, e.scrollHeight - e.clientHeight]].some(
      ([overflow, more]) => overflow === "auto" && more > 1);
    if (scrolls && !(e.tabIndex === 0 && e.role && e.ariaLabel)) faults.push(`no key: ${named(e)}`);
  }
  const pressed = "button, .button, nav a, summary, input[type=range]";
  for (const e of [...document.querySelectorAll(pressed)].filter(shown)) {
    const box = e.getBoundingClientRect();
    if (Math.min(box.width, box.height) < leastTarget - 0.5)
      faults.push(`small: ${named(e)} ${box.width}×${box.height}`);
  }

  const parts = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = ([r, g, b, a], below) =>
    [r, g, b].map((c, i) => a * c + (1 - a) * below[i]);
  const ground = (e) => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    if (e === null) return dark ? [18, 18, 18] : [255, 255, 255];  // the browser's own
    return over(parts(getComputedStyle(e).backgroundColor), ground(e.parentElement));
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => c / 255).map(
      (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (const e of all) {
    const text = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!text || !shown(e) || ["SCRIPT", "STYLE"].includes(e.tagName)) continue;
    const below = ground(e), ink = over(parts(getComputedStyle(e).color), below);
    const [low, high] = [light(below), light(ink)].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < leastContrast) faults.push(`contrast ${contrast.toFixed(2)}: ${named(e)}`);
  }
  return faults;
}
"""


def page_faults(page: Page) -> list[str]:
    """Returns a line for each fault, at the width and in the colour scheme that the page has now.

    Whether it is wider than the window; ids twice; headers without scope, tables without caption,
    pictures without a text, headings that skip a level; what scrolls and cannot be reached by keys
    or has no name; what is too small for a finger; text that is too faint.
    """
    found: list[str] = page.evaluate(_FIND, [LEAST_CONTRAST, LEAST_TARGET])
    return found
