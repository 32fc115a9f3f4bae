// What the exercises in JavaScript share; `exercise.py` is the same for Python.
import assert from "node:assert/strict";

export { assert };
export const settings = JSON.parse(process.env.GRISTMILL_EXERCISE);
export const question = "one two three";
export const answer = "You said: one two three ";
export const mill = { name: "Bern", stones: 7 };
export const weatherQuestion = "What is the weather?";
export const weather = "sunny in Bern";
export const weatherAnswer = "The tool said: sunny in Bern";
export const ask = (content) => [{ role: "user", content }];

const checks = [];
export function check(name, body) {
  checks.push([name, body]);
}

// On the clock that all processes of the machine share, where Node reads that one.
export function stoppedReading() {
  console.log(JSON.stringify({ stopped_reading: Number(process.hrtime.bigint()) / 1e9 }));
}

export async function run() {
  let failed = 0;
  for (const [name, body] of checks) {
    const result = { check: name, passed: true };
    try {
      await body();
    } catch (error) {
      failed += 1;
      console.error(error);
      Object.assign(result, { passed: false, error: String(error).slice(0, 2000) });
    }
    console.log(JSON.stringify(result));
  }
  process.exit(failed ? 1 : 0);
}
