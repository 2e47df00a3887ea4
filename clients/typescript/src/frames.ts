/** The frames of telex.v1: JSON in text messages, and a header with bytes in binary messages. */
import type { ErrorBody } from "./errors.js";

/** Someone who is present in a channel. */
export interface Member {
  key: string;
  ref?: string;
  meta?: unknown;
}

/** A frame of the server. A client ignores types and fields that it does not know. */
export interface Frame {
  type: string;
  c?: number;
  id?: number;
  data?: unknown;
  n?: number;
  error?: ErrorBody;
  // hello, opened
  ping?: number;
  max?: number;
  credit?: number;
  bytes?: number;
  routes?: number;
  contract?: string;
  expires_in?: number | null;
  auth?: string;
  // goaway, denied, closed
  within?: number;
  retry_after?: number;
  status?: number;
  code?: number | string;
  reason?: string;
  // channels
  position?: string;
  recovered?: boolean;
  members?: Member[];
  member?: Member;
}

/** The data of a frame, encoded: JSON, bytes that travel in a binary message, or nothing. */
export type Body = string | Uint8Array<ArrayBuffer> | undefined;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export function toBody(data: unknown): Body {
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  return data instanceof Uint8Array ? (data as Uint8Array<ArrayBuffer>) : JSON.stringify(data);
}

export function sizeOf(body: Body): number {
  return typeof body === "string" ? encoder.encode(body).length : (body?.length ?? 0);
}

export function encode(head: object, body: Body): string | Uint8Array<ArrayBuffer> {
  const text = JSON.stringify(head);
  if (body === undefined) return text;
  if (typeof body === "string") return `${text.slice(0, -1)},"data":${body}}`;
  const header = encoder.encode(text);
  const message = new Uint8Array(4 + header.length + body.length);
  new DataView(message.buffer).setUint32(0, header.length);
  message.set(header, 4);
  message.set(body, 4 + header.length);
  return message;
}

/** The frame of a message, or `undefined` for what is no frame. */
export function decode(raw: unknown): Frame | undefined {
  try {
    if (typeof raw === "string") return checked(JSON.parse(raw));
    const bytes = new Uint8Array(raw as ArrayBuffer);
    const end = 4 + new DataView(bytes.buffer).getUint32(0);
    const frame = checked(JSON.parse(decoder.decode(bytes.subarray(4, end))));
    if (!frame || end > bytes.length) return undefined;
    frame.data = bytes.slice(end);
    return frame;
  } catch {
    return undefined;
  }
}

function checked(found: Frame | null): Frame | undefined {
  return typeof found?.type === "string" ? found : undefined;
}
