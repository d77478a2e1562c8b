// How long after a job ended on another node its page says so. Prints the median and the spread; it asserts nothing on time.

import { expect, signIn, test } from "../tests/base";

const ROUNDS = 15;

test("from the end of a job on another node to its page", async ({ page, mesh }) => {
  test.setTimeout(180_000);
  await signIn(page, mesh, "en");
  const waits: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const job = await mesh.job("--", "sleep", "1.5");
    await page.goto(`${mesh.first.api}/jobs/${job}`);
    await expect(page.getByRole("status", { name: "State" })).toHaveText("Running");
    const at = await page.evaluate(
      () =>
        new Promise<number>((resolve) => {
          const state = document.querySelector("[role=status][aria-label=State]");
          if (state) new MutationObserver(() => state.textContent === "Done" && resolve(Date.now())).observe(state, { childList: true, characterData: true, subtree: true });
        }),
    );
    const shown = JSON.parse(await mesh.v6("job", "show", job, "--json")) as { tasks: { attempts: { ended: string }[] }[] };
    waits.push(at - Date.parse(shown.tasks[0]?.attempts[0]?.ended ?? ""));
  }
  waits.sort((one, other) => one - other);
  console.log(`median ${waits[Math.floor(ROUNDS / 2)]} ms, from ${waits[0]} to ${waits.at(-1)} ms (${ROUNDS} jobs on another node)`);
});
