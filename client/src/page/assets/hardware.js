// Whose hardware is verified: what each device of a provider has shown, and until when that counts.

import { bytes, count, localTime, rate, shortAccount } from "./format.js";
import { element } from "./tables.js";

const precisionNames = { f32: "F32", tf32: "TF32", bf16: "BF16" };

/** One row for each verified device, or one for a provider without any. */
export function hardwareRows(providers) {
  return providers.flatMap((provider) =>
    provider.devices.length === 0
      ? [{ provider, device: null }]
      : provider.devices.map((device) => ({ provider, device })));
}

function seconds(unixSeconds) {
  const milliseconds = unixSeconds * 1_000;
  return element("time", localTime(milliseconds).slice(0, -3), { datetime: new Date(milliseconds).toISOString() });
}

function throughput(device) {
  return Object.entries(device.multiply_adds_per_second)
    .map(([precision, perSecond]) => `${rate(perSecond)} ${precisionNames[precision] ?? precision}`)
    .join(", ");
}

/** A cell about the device, empty where none is verified. */
function ofDevice(cell) {
  return ({ device }) => (device === null ? "" : cell(device));
}

function verification({ provider, device }) {
  if (provider.hardware !== "verified") {
    return "Unverified";
  }
  return element("span", device?.fingerprint_changed ? "Verified, another device than before" : "Verified",
    { class: "good" });
}

export const hardwareColumns = [
  { label: "Provider", cell: ({ provider }) => element("code", shortAccount(provider.id), { title: provider.id }) },
  { label: "Hardware", cell: verification },
  { label: "Device", long: true, cell: ofDevice((device) => device.name) },
  { label: "Memory shown", number: true, cell: ofDevice((device) => bytes(device.memory_bytes)) },
  { label: "Multiply-adds shown", number: true, cell: ofDevice(throughput) },
  { label: "Shown", cell: ofDevice((device) => seconds(device.shown_at)) },
  { label: "Counts until", cell: ofDevice((device) => seconds(device.expires_at)) },
  { label: "Models", number: true, cell: ({ provider }) => count(provider.models.length) },
];
