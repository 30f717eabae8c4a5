// Runs before the first paint, so that a chosen theme does not flash: see src/theme.ts.
(() => {
  try {
    const chosen = localStorage.getItem("ocmt.theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage is switched off: the system's theme it is.
  }
})();
