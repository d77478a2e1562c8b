import base from "./playwright.config";

export default { ...base, testDir: "measure", workers: 1, fullyParallel: false };
