// Verifies receipts with the `jose` library and the coordinator's published keys.
import assert from "node:assert/strict";
import { createLocalJWKSet, jwtVerify } from "jose";

const { jwks, receipts, issuer, audience } = JSON.parse(process.argv[2]);
const keys = createLocalJWKSet(jwks);
for (const receipt of receipts) {
  const { payload, protectedHeader } = await jwtVerify(receipt, keys, {
    issuer, audience, typ: "gristmill-receipt+jwt", algorithms: ["EdDSA"],
  });
  assert.equal(protectedHeader.alg, "EdDSA");
  assert.ok(payload.paid > 0 && payload.fee <= payload.paid);
  const [header, body, signature] = receipt.split(".");
  const forged = [header, Buffer.from(JSON.stringify({ ...payload, paid: 1 })).toString("base64url"), signature].join(".");
  await assert.rejects(jwtVerify(forged, keys, { issuer, audience }), /signature/);
}
console.log(`ok ${receipts.length} receipts`);
