// Written by `telex client`: do not edit.
import {
  connect,
  type CallOptions,
  type Options,
  type Route,
  type Socket,
} from "telex-client";

/** The hash of the contract that this file was written from. */
export const contract = "sha256:5ba3fd15afa6384eaa7ef51cfccf4d8e87d025d92f6469bc25263d649a151419";

export interface Answer {
  yes: boolean;
}

export interface Confirm {
  type: "confirm";
  question: string;
}

export interface Joined {
  type: "joined";
  name: string;
}

export interface Said {
  number: number;
}

/** Says something to the whole room. */
export interface Say {
  type: "say";
  text: string;
}

/** /rooms/{room} */
export interface RoomsRoomRoute extends Pick<Route, "path" | "status" | "error" | "close"> {
  call(data: Say, options?: CallOptions): Promise<Said>;
  notify(data: Say, options?: CallOptions): Promise<void>;
  on(type: "joined", listener: (data: Joined) => void): () => void;
  on(type: "*", listener: (data: Joined) => void): () => void;
  answer(type: "confirm", answer: (data: Confirm, signal: AbortSignal) => Answer | PromiseLike<Answer>): void;
}

/** The routes by their paths. */
export interface Paths {
  "/rooms/{room}": RoomsRoomRoute;
}

export interface ContractClientSocket extends Pick<Socket, "status" | "on" | "close"> {
  /** The route at the address of the socket itself. */
  route<P extends keyof Paths>(): Paths[P];
  route(path: "/rooms/{room}", params: { room: string; }): RoomsRoomRoute;
}

/** Connects to `url`, and stays connected until `close()`. */
export function contractClient(url: string, options?: Options): ContractClientSocket {
  return connect(url, { contract, ...options }) as unknown as ContractClientSocket;
}
