// Pictures of every page in both languages and themes, of a mesh that has something to show.

import { mkdirSync } from "node:fs";

import { expect, LANGUAGES, signIn, test } from "../tests/base";
import type { Mesh } from "../tests/mesh";

const INTO = new URL("../../../docs/images/", import.meta.url).pathname;

type Stage = { failed: string; done: string; idea: string };

async function furnish(mesh: Mesh): Promise<Stage> {
  const idea = JSON.parse(
    await mesh.v6("idea", "add", "قراءة الإيصالات بالهاتف", "--body", "يلتقط المستخدم صورة الإيصال بهاتفه، فتصل إلى أقرب جهاز متاح، وتُقرأ الأرقام العربية والهندية معاً.", "--json"),
  ) as { id: string };
  for (const title of ["Cache the toolchains", "Tests of invoice-ocr are slow on the laptop", "خزّن أدوات البناء", "Publish v0.3"]) await mesh.v6("idea", "add", title);
  await mesh.v6("idea", "argue", "--for", idea.id, "Every receipt is typed by hand today");
  await mesh.v6("idea", "decide", idea.id, "accepted");
  const done = await mesh.job("--idea", idea.id, "--output", "report/**", "--", "sh", "-c", "mkdir report; echo total,date > report/totals.csv; echo 12.50,2026-11-28 >> report/totals.csv; for i in 1 2 3; do echo \"\u001b[32mtest $i ... ok\u001b[0m\"; done");
  const failed = await mesh.job("--label", "builder", "--", "sh", "-c", "for i in $(seq 40); do echo test scan::case_$i ... ok; done; echo 'thread main panicked: left: \"١٢٫٥٠\" right: \"12.50\"' >&2; exit 101");
  for (const line of ["cargo nextest run", "python3 train.py --epochs 12"]) await mesh.job("--", "sh", "-c", `true ${line}`);
  await mesh.job("--label", "tpu", "--", "sh", "-c", "train-large --on tpu");
  await mesh.until(async () => (JSON.parse(await mesh.v6("job", "show", failed, "--json")) as { state: string }).state === "failed");
  await mesh.until(async () => (JSON.parse(await mesh.v6("job", "show", done, "--json")) as { state: string }).state === "done");
  await mesh.job("--array", "12", "--", "sh", "-c", "sleep 25; echo part $V6_TASK_ID");
  await mesh.job("--", "sh", "-c", "sleep 60");
  return { failed, done, idea: idea.id };
}

test("pictures", async ({ page, mesh, browser }) => {
  test.setTimeout(300_000);
  mkdirSync(INTO, { recursive: true });
  const stage = await furnish(mesh);
  await page.close();
  for (const language of LANGUAGES)
    for (const theme of ["light", "dark"] as const) {
      const context = await browser.newContext({ viewport: { width: 1366, height: 860 } });
      const shown = await context.newPage();
      await signIn(shown, mesh, language, theme);
      for (const [name, path] of [
        ["home", "/"],
        ["jobs", "/jobs"],
        ["job", `/jobs/${stage.done}`],
        ["job-failed", `/jobs/${stage.failed}`],
        ["new-job", "/jobs/new"],
        ["ideas", "/ideas"],
        ["idea", `/ideas/${stage.idea}`],
        ["nodes", "/nodes"],
        ["mesh", "/mesh"],
        ["storage", "/storage"],
      ] as const) {
        await shown.goto(mesh.first.api + path);
        await expect(shown.getByRole("main")).not.toHaveAttribute("aria-busy", "true");
        if (name.startsWith("job-") || name === "job") await expect(shown.getByRole("log")).toContainText("test");
        await shown.waitForLoadState("networkidle", { timeout: 1500 }).catch(() => undefined);
        await shown.screenshot({ path: `${INTO}${name}-${language}-${theme}.png` });
      }
      if (theme === "light") {
        await shown.setViewportSize({ width: 360, height: 740 });
        await shown.goto(mesh.first.api);
        await expect(shown.getByRole("main")).not.toHaveAttribute("aria-busy", "true");
        await shown.screenshot({ path: `${INTO}narrow-${language}.png` });
      }
      await context.close();
    }
});
