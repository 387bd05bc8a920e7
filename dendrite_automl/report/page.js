"use strict";
// Hovering over or focusing a network describes it; a link to a card opens it; printing opens all cards.
const tip = document.getElementById("tip");
for (const point of document.querySelectorAll(".point")) {
  for (const event of ["mouseenter", "focus"]) {
    point.addEventListener(event, () => { tip.textContent = point.dataset.about; });
  }
}
function openTarget() {
  const card = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (card instanceof HTMLDetailsElement) {
    card.open = true;
    card.scrollIntoView({ block: "start" });
    card.querySelector("summary").focus({ preventScroll: true });
  }
}
window.addEventListener("hashchange", openTarget);
document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (link && link.getAttribute("href") === location.hash) openTarget();
});
openTarget();
let closed = [];
window.addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const card of closed) card.open = true;
});
window.addEventListener("afterprint", () => { for (const card of closed) card.open = false; });
