// What all Node drivers share: a command with parameters from the command line, its result as one line of JSON.
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";

export const MODEL = "deepseek-v4-flash";

// The tools of the tests, really run.
export function runTool(name, args) {
  if (name === "shell") return execFileSync("sh", ["-c", args.command], { encoding: "utf8" });
  if (name === "count_files") return JSON.stringify({ count: readdirSync(args.path).length });
  throw new Error(`no tool ${name}`);
}

export const usage = (input, output, cached) => ({ input, output, cached: cached ?? 0 });

// An error as the client's user sees it.
function describe(error) {
  const kind = [];
  for (let of = error?.constructor; of?.name; of = Object.getPrototypeOf(of)) kind.push(of.name);
  return {
    kind,
    status: error?.status ?? error?.statusCode ?? error?.cause?.statusCode ?? null,
    code: error?.code ?? null,
    message: [error?.message, error?.responseBody].filter(Boolean).join(" "),
  };
}

export async function main(driver) {
  const { command, ...order } = JSON.parse(process.argv[2]);
  let result;
  try {
    result = await driver[command](order);
  } catch (error) {
    console.error(error);
    result = { error: describe(error) };
  }
  console.log(JSON.stringify(result));
  // Connections that the driver leaves open stay open until the test has looked.
  process.stdin.resume();
  process.stdin.on("end", () => process.exit(0));
}
