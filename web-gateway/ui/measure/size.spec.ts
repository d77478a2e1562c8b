// What the first page makes a browser fetch, as it travels. Prints kilobytes.

import { expect, test } from "../tests/base";

test("what the first page fetches", async ({ page, mesh }) => {
  const sizes: Record<string, number> = {};
  page.on("requestfinished", (request) => {
    void request.sizes().then(({ responseBodySize }) => {
      const kind = new URL(request.url()).pathname.split(".").at(-1) ?? "";
      sizes[kind] = (sizes[kind] ?? 0) + responseBodySize;
    });
  });
  await page.goto(await mesh.link());
  await expect(page.getByRole("main")).not.toHaveAttribute("aria-busy", "true");
  await page.waitForLoadState("networkidle", { timeout: 2000 }).catch(() => undefined);
  console.log(["js", "css", "woff2"].map((kind) => `${kind} ${Math.round((sizes[kind] ?? 0) / 1000)} kB`).join(", "));
});
