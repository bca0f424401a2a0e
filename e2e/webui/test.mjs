// The chat page in a headless Chromium against a real server that plays a script.
//
//   npm install && DS4_SERVER=path/to/ds4-server npm test
//
// CHROMIUM names the browser (default: chromium), SCREENSHOTS a folder for pictures of what was seen.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import puppeteer from "puppeteer-core";

const code = "Here is **how**, with `inline` code:\n\n```python\ndef f(x):\n    return x < 1 and '<b>'\n```\n\nDone <img src=x onerror=alert(1)>.";
const script = [
  { when: "code", reply: `<think>They want code.</think>${code}` },
  { when: "slow", reply: "<think>Slowly.</think>" + "one two three four five ".repeat(40), tokens_per_second: 20 },
  { when: "long", reply: "Many lines.\n\n".repeat(30) },
  { reply: "<think>I was told: {turn}</think>You said: {turn}" },
];

async function serve(folder, ...more) {
  const file = join(folder, "script.json");
  writeFileSync(file, JSON.stringify(script));
  const program = process.env.DS4_SERVER ?? "ds4-server";
  const args = ["--backend", "stub", "--stub-script", file, "--port", "0", "--parallel", "4", "--log-level", "warn", ...more];
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith("listening on ")) return { child, url: line.slice("listening on ".length) };
  }
  throw new Error("the server ended before it listened");
}

const folder = mkdtempSync(join(tmpdir(), "ds4-webui-"));
const server = await serve(folder);
const guarded = await serve(folder, "--api-key", "open sesame");
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
const failures = [];

async function open(width, scheme, url = server.url) {
  const page = await (await browser.createBrowserContext()).newPage();
  await page.setViewport({ width, height: 800 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  page.on("pageerror", error => failures.push(`page: ${error}`));
  page.on("console", message => { if (message.type() === "error") failures.push(`console: ${message.text()}`); });
  page.on("dialog", async box => { failures.push("a script of the answer ran"); await box.dismiss(); });
  page.on("request", request => {
    const to = request.url();
    if (!to.startsWith(url) && !to.startsWith("data:")) failures.push(`asked for ${to}`);
  });
  await page.goto(url, { waitUntil: "networkidle0" });
  return page;
}

async function picture(page, name) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`) });
}

const idle = page => page.waitForSelector("#turns[aria-busy=false]");
const last = (page, inside) => page.$eval(`#turns li:last-child ${inside}`, node => node.textContent);

async function say(page, text) {
  await page.type("#prompt", text);
  await page.keyboard.press("Enter");
}

const tests = {
  async "an answer streams with its thoughts folded and its figures below"() {
    const page = await open(1000, "light");
    await picture(page, "empty-light");
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt", "one can type at once");
    assert.match(await page.$eval("#model", node => node.textContent), /^deepseek-v4-flash · context /);
    await say(page, "Hello there");
    await page.waitForSelector("#turns li.assistant");
    await idle(page);
    assert.equal(await last(page, ".text"), "You said: Hello there");
    assert.equal(await page.$eval("#turns details", node => node.open), false);
    assert.match(await last(page, "summary"), /^Thought/);
    assert.equal(await last(page, "details .inside"), "I was told: Hello there");
    assert.match(await last(page, ".facts"), /^\d+ tokens · .*tokens\/s · first after .* · prompt \d+, 0 cached/);
    assert.equal(await page.$eval("#status", node => node.textContent), "Answer finished.");
    await say(page, "And again");
    await page.waitForFunction(() => document.querySelectorAll("li.assistant").length === 2);
    await idle(page);
    assert.match(await last(page, ".facts"), /prompt \d+, \d+ cached/);
    assert.equal((await page.$$("#turns li")).length, 4);
    await picture(page, "chat-light");
  },

  async "code is set apart and nothing of an answer becomes markup"() {
    const page = await open(1000, "dark");
    await say(page, "some code please");
    await page.waitForSelector("figure.code");
    await idle(page);
    assert.equal(await last(page, "figure pre"), "def f(x):\n    return x < 1 and '<b>'");
    assert.equal(await last(page, "figcaption span"), "python");
    assert.equal(await last(page, "strong"), "how");
    assert.equal(await page.$("#turns img"), null);
    assert.match(await last(page, ".text"), /Done <img src=x onerror=alert\(1\)>\./);
    await picture(page, "code-dark");
  },

  async "an answer can be stopped and asked for again"() {
    const page = await open(420, "light");
    await say(page, "be slow");
    await page.waitForFunction(() => /three/.test(document.querySelector("li.assistant .text")?.textContent ?? ""));
    assert.equal(await page.$eval("#send", node => node.hidden), true);
    await picture(page, "streaming-phone");
    await page.keyboard.press("Escape");
    await idle(page);
    assert.match(await last(page, ".facts"), /stopped/);
    const health = async () => (await (await fetch(`${server.url}/health`)).json()).slots_processing;
    for (let i = 0; i < 50 && await health() > 0; i++) await new Promise(done => setTimeout(done, 20));
    assert.equal(await health(), 0, "the server stopped, too");
    await page.click("#turns li:last-child [aria-label='Answer again']");
    await page.waitForSelector("#stop:not([hidden])");
    await page.click("#stop");
    await idle(page);
    assert.equal((await page.$$("#turns li")).length, 2);
  },

  async "a conversation outlives the page until a new one is begun"() {
    const page = await open(1000, "light");
    await say(page, "keep this");
    await page.waitForSelector("#turns li.assistant");
    await idle(page);
    await page.reload({ waitUntil: "networkidle0" });
    assert.equal(await last(page, ".text"), "You said: keep this");
    await page.click("#new");
    await page.waitForFunction(() => document.querySelectorAll("#turns li").length === 0);
    await page.reload({ waitUntil: "networkidle0" });
    assert.equal(await page.$eval("#empty", node => node.hidden), false);
  },

  async "settings reach the server"() {
    const page = await open(1000, "dark");
    await page.click("#settings-open");
    await page.type("#system", "Be brief.");
    await page.select("#thinking", "none");
    await page.type("#temperature", "0");
    await picture(page, "settings-dark");
    await page.click("#settings-form [value=save]");
    const [request] = await Promise.all([
      page.waitForRequest(request => request.url().endsWith("/v1/chat/completions")),
      say(page, "hi"),
    ]);
    const body = JSON.parse(request.postData());
    assert.deepEqual(body.messages[0], { role: "system", content: "Be brief." });
    assert.deepEqual([body.thinking, body.temperature], [{ type: "disabled" }, 0]);
    await idle(page);
    assert.equal(await page.$("#turns details"), null, "no thoughts");
  },

  async "keys alone reach everything, and everything has a name"() {
    const page = await open(1000, "light");
    await say(page, "hi");
    await page.waitForSelector("#turns li.assistant");
    await idle(page);
    const seen = new Set();
    for (let i = 0; i < 14; i++) {
      await page.keyboard.press("Tab");
      seen.add(await page.evaluate(() => document.activeElement.id || document.activeElement.tagName));
    }
    for (const id of ["new", "settings-open", "SUMMARY", "prompt", "send"]) assert.ok(seen.has(id), `${id}: ${[...seen]}`);
    const tree = await page.accessibility.snapshot({ interestingOnly: true });
    const nameless = [];
    const visit = node => {
      if (["button", "textbox", "combobox", "spinbutton", "link"].includes(node.role) && !node.name) nameless.push(node.role);
      (node.children ?? []).forEach(visit);
    };
    visit(tree);
    assert.deepEqual(nameless, []);
    await page.click("#settings-open");
    await page.keyboard.press("Escape");
    assert.equal(await page.$eval("#settings", node => node.open), false);
  },

  async "it stays where the reader is, and follows who is at the end"() {
    const page = await open(420, "dark");
    await say(page, "long");
    await page.waitForSelector("#turns li.assistant");
    await idle(page);
    const gap = () => page.$eval("#main", node => node.scrollHeight - node.scrollTop - node.clientHeight);
    assert.ok(await gap() < 2, "at the end");
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    assert.equal(wide, false, "nothing is wider than the screen");
    await picture(page, "long-phone-dark");
  },

  async "a key is asked for where the server wants one"() {
    const page = await open(1000, "light", guarded.url);
    await page.waitForSelector("#settings[open]");
    assert.equal(await page.evaluate(() => document.activeElement.id), "key");
    await picture(page, "key-light");
    await page.type("#key", "open sesame");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => /^deepseek-v4-flash/.test(document.querySelector("#model").textContent));
    await say(page, "Hello");
    await page.waitForSelector("#turns li.assistant");
    await idle(page);
    assert.equal(await last(page, ".text"), "You said: Hello");
    failures.splice(0, failures.length, ...failures.filter(text => !text.includes("401")));
  },

  async "a server that is gone is told in words"() {
    const page = await open(1000, "light");
    await page.setOfflineMode(true);
    await say(page, "anyone?");
    await page.waitForSelector(".error");
    assert.equal(await last(page, ".error"), "The server cannot be reached.");
    failures.splice(0, failures.length, ...failures.filter(text => !text.includes("ERR_INTERNET_DISCONNECTED")));
  },
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
    assert.deepEqual(failures.splice(0), []);
    console.log(`ok   ${name}`);
  } catch (error) {
    failed += 1;
    failures.length = 0;
    console.log(`FAIL ${name}\n${error.stack}`);
  }
}
await browser.close();
server.child.kill();
guarded.child.kill();
process.exitCode = failed ? 1 : 0;
