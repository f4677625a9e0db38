"use strict";
for (const name of ["mouseover", "focusin"]) {
  document.addEventListener(name, (event) => {
    const stretch = event.target.closest && event.target.closest(".stretch");
    if (!stretch) return;
    let place = stretch.ownerSVGElement;
    while (place && !(place.classList && place.classList.contains("why"))) place = place.nextElementSibling;
    if (place) place.textContent = stretch.dataset.why;
  });
}
const slider = document.getElementById("step");
if (slider) {
  const steps = [...document.querySelectorAll(".step")];
  const show = () => {
    steps.forEach((step, number) => { step.hidden = number !== Number(slider.value); });
    const heading = steps[slider.value] && steps[slider.value].querySelector("h3");
    document.getElementById("step-name").textContent = heading ? heading.textContent : "";
  };
  slider.addEventListener("input", show);
  show();
}
document.getElementById("copy").addEventListener("click", () => {
  const box = document.getElementById("document");
  const done = () => { document.getElementById("copied").textContent = "copied"; };
  if (navigator.clipboard && window.isSecureContext) {
    navigator.clipboard.writeText(box.textContent).then(done, () => getSelection().selectAllChildren(box));
  } else {
    getSelection().selectAllChildren(box);
    if (document.execCommand("copy")) done();
  }
});
