import { defineConfig } from "@playwright/test";

// Real nodes of this machine (V6_BIN, else the debug build), Debian's Chromium.
export default defineConfig({
  testDir: "tests",
  timeout: 60_000,
  expect: { timeout: 10_000 },
  workers: 2,
  fullyParallel: true,
  retries: 0,
  reporter: [["list"]],
  use: {
    browserName: "chromium",
    viewport: { width: 1366, height: 860 },
    trace: "retain-on-failure",
    launchOptions: {
      executablePath: process.env["V6_CHROMIUM"] ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    },
  },
});
