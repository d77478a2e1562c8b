// What every test of the pages starts from: a mesh of real nodes, a language, a signed-in page, and axe.

import AxeBuilder from "@axe-core/playwright";
import { expect, type Page, test as plain } from "@playwright/test";
import { readFileSync } from "node:fs";

import { Mesh } from "./mesh";

export type Language = "en" | "ar";
export const LANGUAGES: Language[] = ["en", "ar"];

const words = Object.fromEntries(
  LANGUAGES.map((language) => [language, JSON.parse(readFileSync(new URL(`../src/i18n/${language}.json`, import.meta.url), "utf8")) as Record<string, string>]),
) as Record<Language, Record<string, string>>;

/** A message without values, as it is shown. */
export const say = (language: Language, id: string): string => {
  const text = words[language][id];
  if (text === undefined) throw new Error(`no message ${id}`);
  return text;
};

/** What a browser says when a page does something wrong; an answer that is an error is not one. */
const isHarmless = (text: string): boolean => /Failed to load resource|net::ERR_/.test(text);

export const test = plain.extend<object, { mesh: Mesh }>({
  page: async ({ page }, use) => {
    const said: string[] = [];
    page.on("console", (message) => {
      if (message.type() === "error" && !isHarmless(message.text())) said.push(message.text());
    });
    page.on("pageerror", (error) => said.push(String(error)));
    await use(page);
    expect(said, "the browser's console").toEqual([]);
  },
  mesh: [
    async ({}, use) => {
      const mesh = await Mesh.start(3);
      await use(mesh);
      await mesh.stop();
    },
    { scope: "worker", timeout: 60_000 },
  ],
});

/** Signs in and shows the pages in a language. */
export async function signIn(page: Page, mesh: Mesh, language: Language, theme: "light" | "dark" = "light"): Promise<void> {
  await page.addInitScript(
    ([code, look]) => {
      if (localStorage.getItem("v6.language") === null) localStorage.setItem("v6.language", code as string);
      if (localStorage.getItem("v6.theme") === null) localStorage.setItem("v6.theme", look as string);
    },
    [language, theme],
  );
  await page.goto(await mesh.link());
  await expect(page).toHaveURL(`${mesh.first.api}/`);
  await expect(page.getByRole("main")).not.toHaveAttribute("aria-busy", "true");
}

/** No finding of axe for WCAG 2.2 AA. */
export async function isAccessible(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]).analyze();
  expect(violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.target.join(" ")).join(" | ")}`)).toEqual([]);
}

export { expect };
