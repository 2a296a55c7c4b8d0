// A browser sends the files of a folder without their paths. They are kept, and sent as a text.
document.addEventListener("change", (event) => {
  const files = event.target.files;
  if (files && event.target.webkitdirectory) window.linkcontextPaths = Array.from(files, (f) => f.webkitRelativePath);
}, true);

// What the dialog that chooses files offers first. Files are checked by their content, so others can be dropped.
const offered = {
  pictures: "image/*,.heic,.heif,.avif", query: "image/*,.heic,.heif,.avif", chat: "image/*,.heic,.heif,.avif",
  archive: ".zip", pack: ".pack",
};
document.addEventListener("click", (event) => {
  const input = event.target;
  if (input.type !== "file" || input.webkitdirectory) return;
  for (const [id, kinds] of Object.entries(offered)) if (input.closest("#" + id)) input.accept = kinds;
}, true);

// Bring an element to the top of the window if it begins below or above what is visible.
window.linkcontextShow = (id) => requestAnimationFrame(() => {
  const element = document.getElementById(id);
  const top = element.getBoundingClientRect().top;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (top < 0 || top > innerHeight * .6) element.scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
});
