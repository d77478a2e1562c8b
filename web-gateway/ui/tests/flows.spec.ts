// What people do on the pages, in both languages, by role and name.

import { createServer } from "node:http";

import { expect, isAccessible, LANGUAGES, say, signIn, test } from "./base";
import { Mesh } from "./mesh";

for (const language of LANGUAGES) {
  const t = (id: string) => say(language, id);

  test.describe(language, () => {
    test("without a session every path asks to sign in", async ({ page, mesh }) => {
      await page.addInitScript((code) => localStorage.setItem("v6.language", code), language);
      for (const path of ["/", "/jobs", "/ideas/abc"]) {
        await page.goto(mesh.first.api + path);
        await expect(page.getByRole("heading", { level: 1, name: t("sign.title") })).toBeVisible();
        await expect(page.getByText("v6 open", { exact: true })).toBeVisible();
        await expect(page.getByRole("navigation")).toHaveCount(0);
        await expect(page.getByText(mesh.first.name)).toHaveCount(0);
      }
      await isAccessible(page);
    });

    test("every page has its heading, its place and no finding of axe", async ({ page, mesh }) => {
      await signIn(page, mesh, language);
      for (const [path, id] of [
        ["/", "nav.home"],
        ["/jobs", "nav.jobs"],
        ["/jobs/new", "nav.new"],
        ["/ideas", "nav.ideas"],
        ["/nodes", "nav.nodes"],
        ["/mesh", "nav.mesh"],
        ["/storage", "nav.storage"],
      ] as const) {
        await page.goto(mesh.first.api + path);
        await expect(page.getByRole("heading", { level: 1, name: t(id) })).toHaveCount(1);
        await expect(page.getByRole("main")).toHaveCount(1);
        await expect(page.getByRole("main")).not.toHaveAttribute("aria-busy", "true");
        await expect(page.locator("html")).toHaveAttribute("dir", language === "ar" ? "rtl" : "ltr");
        if (path !== "/jobs/new") await expect(page.getByRole("navigation", { name: t("nav.label") }).locator("[aria-current=page]")).toContainText(t(id));
        await isAccessible(page);
      }
    });

    test("a job is made, watched, and its file downloaded and looked at", async ({ page, mesh }) => {
      await signIn(page, mesh, language);
      await page.getByRole("link", { name: t("nav.new") }).first().click();
      await page.getByRole("textbox", { name: t("new.command") }).fill("mkdir -p out && echo 'مرحبا hello' | tee out/hello.txt && sleep 1 && echo last");
      await page.getByRole("combobox", { name: t("new.labels") }).fill("builder");
      await page.getByRole("textbox", { name: t("new.artifacts") }).fill("out/**");
      await expect(page.getByText(t("new.would"))).toBeVisible();
      await isAccessible(page);
      await page.getByRole("button", { name: t("new.create") }).click();
      await expect(page).toHaveURL(/\/jobs\/[0-9a-f]{32}$/);
      const state = page.getByRole("status", { name: t("job.state") });
      await expect(state).toHaveText(t("state.done"));
      await expect(page.getByRole("log", { name: t("log.name") })).toContainText("مرحبا hello");
      await expect(page.getByRole("log", { name: t("log.name") })).toContainText("last");
      const download = page.waitForEvent("download");
      await page.getByRole("link", { name: `${t("files.download")} out/hello.txt` }).click();
      expect((await download).suggestedFilename()).toBe("hello.txt");
      await page.getByRole("button", { name: `${t("files.preview")} out/hello.txt` }).click();
      await expect(page.getByRole("dialog")).toContainText("مرحبا hello");
      await isAccessible(page);
    });

    test("files that are chosen are the job's input", async ({ page, mesh }) => {
      await signIn(page, mesh, language);
      await page.goto(`${mesh.first.api}/jobs/new`);
      await page.getByRole("textbox", { name: t("new.command") }).fill("cat one.txt نص.txt");
      const choosing = page.waitForEvent("filechooser");
      await page.getByRole("button", { name: t("new.someFiles") }).click();
      await (await choosing).setFiles([
        { name: "one.txt", mimeType: "text/plain", buffer: Buffer.from(`first ${language}\n`) },
        { name: "نص.txt", mimeType: "text/plain", buffer: Buffer.from("ثانٍ\n") },
      ]);
      await expect(page.getByText(language === "ar" ? "ملفان" : "2 files")).toBeVisible();
      await expect(page.getByText(/^v6 run --input \. -- sh -c/)).toBeVisible();
      await page.getByRole("button", { name: t("new.create") }).click();
      await expect(page.getByRole("status", { name: t("job.state") })).toHaveText(t("state.done"));
      await expect(page.getByRole("log")).toContainText(`first ${language}`);
      await expect(page.getByRole("log")).toContainText("ثانٍ");
      await page.getByRole("link", { name: t("job.like") }).click();
      await expect(page.getByRole("textbox", { name: t("new.command") })).toHaveValue("cat one.txt نص.txt");
      await expect(page.getByText(t("new.filesSame"))).toBeVisible();
    });

    test("a long log is in the page by parts, and a long line is cut", async ({ page, mesh }) => {
      const job = await mesh.job("--name", "long", "--", "sh", "-c", "head -c 70000 /dev/zero | tr '\\0' x; echo; seq 200000");
      await signIn(page, mesh, language);
      await page.goto(`${mesh.first.api}/jobs/${job}`);
      const log = page.getByRole("log");
      await expect(log).toContainText("200000");
      expect(await log.evaluate((element) => (element.textContent ?? "").length)).toBeLessThan(1024 * 1024);
      await page.getByRole("searchbox", { name: t("log.filter") }).fill("xxxxx");
      await expect(log.getByRole("link", { name: t("log.whole") })).toBeVisible();
    });

    test("a failed job opens at the line that says why", async ({ page, mesh }) => {
      const job = await mesh.job("--", "sh", "-c", "seq 3000; echo 'error: اختبار the reason' >&2; seq 3000; exit 3");
      await signIn(page, mesh, language);
      await page.goto(`${mesh.first.api}/jobs/${job}`);
      await expect(page.getByRole("status", { name: t("job.state") })).toHaveText(t("state.failed"));
      const why = page.getByRole("log").locator("[aria-current=true]");
      await expect(why).toContainText("error: اختبار the reason");
      await expect(why).toBeInViewport();
      await expect(page.getByText(t("job.exit"), { exact: true }).first()).toBeVisible();
      await isAccessible(page);
    });

    test("a running job is cancelled, and says so at once", async ({ page, mesh }) => {
      const job = await mesh.job("--", "sh", "-c", "echo begun; sleep 60");
      await signIn(page, mesh, language);
      await page.goto(`${mesh.first.api}/jobs/${job}`);
      await expect(page.getByRole("log")).toContainText("begun");
      await page.getByRole("button", { name: t("job.cancel") }).click();
      await page.getByRole("button", { name: t("job.cancelYes") }).click();
      await expect(page.getByRole("status", { name: t("job.state") })).toHaveText(t("state.cancelled"));
    });

    test("a job of another node is announced in the list and found by its words", async ({ page, mesh }) => {
      await signIn(page, mesh, language);
      await page.getByRole("link", { name: t("nav.jobs") }).first().click();
      const word = `needle-${language}-${Date.now()}`;
      await mesh.on(mesh.nodes[1] ?? mesh.first, "run", "--detach", "--", "echo", word);
      const fresh = page.getByRole("button", { name: language === "ar" ? /جديدة$/ : /new$/ });
      const row = page.getByRole("link", { name: new RegExp(word) });
      await expect(fresh.or(row).first()).toBeVisible({ timeout: 4000 });
      if (!(await row.isVisible())) await fresh.click();
      await expect(row).toBeVisible();
      await page.getByRole("searchbox", { name: t("jobs.search") }).fill(word);
      await expect(page).toHaveURL(new RegExp(`q=${word}`));
      await expect(page.getByRole("main").getByRole("listitem")).toHaveCount(1);
      await isAccessible(page);
    });

    test("an idea is added, found, argued and served by a job", async ({ page, mesh }) => {
      await signIn(page, mesh, language);
      await page.goto(`${mesh.first.api}/ideas`);
      const title = `خزّن الأدوات cache ${language} ${Date.now()}`;
      await page.getByRole("button", { name: t("ideas.add") }).first().click();
      await page.getByRole("textbox", { name: t("ideas.title") }).fill(title);
      await page.getByRole("textbox", { name: t("ideas.body"), exact: true }).fill("كل بناء ينزّل ٤٠٠ م.ب");
      await isAccessible(page);
      await page.getByRole("dialog").getByRole("button", { name: t("ideas.add") }).click();
      await page.getByRole("dialog").getByRole("link", { name: title }).click();
      await expect(page.getByRole("heading", { level: 1 })).toHaveText(title);
      await page.getByRole("button", { name: t("ideas.say") }).click();
      await page.getByRole("textbox", { name: t("ideas.words") }).fill("it saves time");
      await page.getByRole("button", { name: t("ideas.saySend") }).click();
      await expect(page.getByText("it saves time")).toBeVisible();
      await page.getByRole("button", { name: t("ideas.write") }).click();
      await page.getByRole("textbox", { name: t("ideas.notebook") }).fill("نص مشترك");
      await page.getByRole("button", { name: t("ideas.save") }).click();
      await expect(page.getByText("نص مشترك")).toBeVisible();
      await isAccessible(page);
      await page.getByRole("link", { name: t("ideas.run") }).click();
      await page.getByRole("textbox", { name: t("new.command") }).fill("true");
      await page.getByRole("button", { name: t("new.create") }).click();
      await expect(page.getByRole("status", { name: t("job.state") })).toHaveText(t("state.done"));
    });

    test("an invite is made and shown once", async ({ page, mesh }) => {
      await signIn(page, mesh, language);
      await page.goto(`${mesh.first.api}/mesh`);
      await page.getByRole("button", { name: t("mesh.invite") }).click();
      await page.getByRole("button", { name: t("mesh.makeTicket") }).click();
      await expect(page.getByText(/^v6 up --join /)).toBeVisible();
      await expect(page.getByRole("img", { name: t("mesh.qr") })).toBeVisible();
      await isAccessible(page);
    });

    test("anything is found by Ctrl-K, and keys lead to lists", async ({ page, mesh }) => {
      const word = `palette-${language}-${Date.now()}`;
      const job = await mesh.job("--", "echo", word);
      await signIn(page, mesh, language);
      await page.keyboard.press("Control+k");
      await page.getByRole("combobox", { name: t("nav.find") }).fill(word);
      await expect(page.getByRole("option").first()).toContainText(word);
      await page.keyboard.press("Enter");
      await expect(page).toHaveURL(`${mesh.first.api}/jobs/${job}`);
      await page.keyboard.press("g");
      await page.keyboard.press("i");
      await expect(page).toHaveURL(`${mesh.first.api}/ideas`);
    });

    test("signing out shows nothing of the mesh any more", async ({ page, mesh }) => {
      await signIn(page, mesh, language);
      await page.getByRole("button", { name: t("nav.signOut") }).click();
      await expect(page.getByRole("heading", { level: 1, name: t("sign.title") })).toBeVisible();
      await page.goto(`${mesh.first.api}/jobs`);
      await expect(page.getByRole("heading", { level: 1, name: t("sign.title") })).toBeVisible();
    });
  });
}

test("the language is changed on the page and remembered", async ({ page, mesh }) => {
  await signIn(page, mesh, "en");
  await page.getByRole("button", { name: "العربية" }).click();
  await expect(page.locator("html")).toHaveAttribute("lang", "ar");
  await page.reload();
  await expect(page.getByRole("link", { name: say("ar", "nav.jobs") }).first()).toBeVisible();
});

test("on a narrow screen everything is behind the menu and nothing is cut", async ({ page, mesh }) => {
  await page.setViewportSize({ width: 360, height: 740 });
  await signIn(page, mesh, "ar");
  await page.getByRole("button", { name: say("ar", "nav.menu") }).click();
  await page.getByRole("link", { name: say("ar", "nav.nodes") }).click();
  await expect(page.getByRole("heading", { level: 1, name: say("ar", "nav.nodes") })).toBeVisible();
  for (const path of ["/", "/jobs", "/jobs/new", "/ideas", "/mesh", "/storage"]) {
    await page.goto(mesh.first.api + path);
    await expect(page.getByRole("main")).not.toHaveAttribute("aria-busy", "true");
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    expect(wide, path).toBeLessThanOrEqual(0);
  }
});

test("while the node is gone the page says how old what it shows is", async ({ browser }) => {
  const alone = await Mesh.start(1);
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    await signIn(page, alone, "en");
    await expect(page.getByText("desk", { exact: true }).first()).toBeVisible();
    alone.first.process.kill("SIGKILL");
    await expect(page.getByRole("status").filter({ hasText: "The connection to the node is lost" })).toBeVisible();
    await expect(page.getByText("desk", { exact: true }).first()).toBeVisible();
  } finally {
    await context.close();
    await alone.stop();
  }
});

test("a page of another port of this host changes nothing", async ({ page, mesh }) => {
  await signIn(page, mesh, "en");
  // Same host, so the same site: the browser sends the cookie along. This page has no policy that would stop it.
  const other = createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<!doctype html><title>other</title>"));
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  const address = other.address();
  if (address === null || typeof address === "string") throw new Error("it has a port");
  const job = await mesh.job("--", "sleep", "30");
  await page.goto(`http://127.0.0.1:${address.port}/`);
  const answered = page.waitForResponse(/cancel$/);
  await page.evaluate(
    ([api, id]) => {
      const form = document.body.appendChild(document.createElement("form"));
      form.method = "post";
      form.action = `${api}/v1/jobs/${id}/cancel`;
      form.submit();
    },
    [mesh.first.api, job],
  );
  expect((await answered).status()).toBe(403);
  const shown = JSON.parse(await mesh.v6("job", "show", job, "--json")) as { state: string };
  expect(["queued", "claimed", "running"]).toContain(shown.state);
  await mesh.v6("job", "cancel", job);
  await page.goto(mesh.first.api);
  other.close();
});
