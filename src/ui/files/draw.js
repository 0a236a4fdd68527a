// A description of elements, and a function that makes a part of the document what is described.

// An element: attributes that are null or false are absent, those that begin with on are handlers, and key names an element
// among its siblings whatever its place.
export function el(tag, attributes, ...children) {
  return { tag, attributes: attributes ?? {}, children };
}

// Makes the children of an element what is described. What is as described is not touched.
export function patch(parent, described) {
  const wanted = described.flat(Infinity).filter((child) => child || child === 0);
  const keys = new Set(wanted.map((child) => child.attributes?.key));
  const keyed = new Map();
  for (const child of [...parent.childNodes]) {
    // Gone before anything is moved: an element that is moved loses the focus.
    if (child.drawnKey && !keys.has(child.drawnKey)) child.remove();
    else if (child.drawnKey) keyed.set(child.drawnKey, child);
  }
  let at = parent.firstChild;
  for (const child of wanted) {
    if (!child.tag) {
      at = text(parent, at, String(child));
      continue;
    }
    const { key } = child.attributes;
    const isSame = at?.localName === child.tag && !at.drawnKey;
    let element = key ? keyed.get(key) : isSame && at;
    if (!element) {
      element = document.createElement(child.tag);
      element.drawnKey = key;
      element.drawn = {};
    }
    if (element === at) at = at.nextSibling;
    else parent.insertBefore(element, at);
    attributes(element, child.attributes);
    if (child.children.length || element.firstChild) patch(element, child.children);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// Puts a text before a node, or into it if it is one; returns what follows.
function text(parent, at, content) {
  if (at?.nodeType === Node.TEXT_NODE) {
    if (at.data !== content) at.data = content;
    return at.nextSibling;
  }
  parent.insertBefore(document.createTextNode(content), at);
  return at;
}

function attributes(element, wanted) {
  const before = element.drawn ?? {};
  for (const name of Object.keys(before)) {
    if (!(name in wanted) && !name.startsWith('on')) element.removeAttribute(name);
  }
  for (const [name, value] of Object.entries(wanted)) {
    if (name === 'key') continue;
    if (name.startsWith('on')) element[name] = value;
    else if (before[name] === value) continue;
    else if (name === 'share') element.style.setProperty('--share', value);
    else if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else if (name === 'value' || name === 'checked') {
      // Not what is being typed.
      if (document.activeElement !== element) element[name] = value;
    } else element.setAttribute(name, value === true ? '' : value);
  }
  element.drawn = wanted;
}
