// Before the first paint: language, direction and theme as the person chose them, else as the browser has them.
(() => {
  const kept = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  };
  const known = ["en", "ar"];
  const wanted = navigator.languages.map((language) => language.slice(0, 2).toLowerCase());
  const chosen = kept("v6.language");
  const language = known.includes(chosen) ? chosen : (wanted.find((one) => known.includes(one)) ?? "en");
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const root = document.documentElement;
  root.lang = language;
  root.dir = language === "ar" ? "rtl" : "ltr";
  root.dataset.theme = kept("v6.theme") ?? (dark ? "dark" : "light");
})();
