/** Hooks for React: the status of a socket, the events of a channel as state, and calls. */
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";
import type { CallOptions, Channel, ChannelEvent, Member, Route, Socket, Status } from "./index.js";

/** The status of `socket`; the component is rendered again when it changes. */
export function useStatus(socket: Socket): Status {
  const subscribe = useCallback((changed: () => void) => socket.on("status", changed), [socket]);
  const status = () => socket.status;
  return useSyncExternalStore(subscribe, status, status);
}

export interface UseChannelOptions<S, T> {
  params?: Record<string, string>;
  query?: Record<string, string>;
  /** The state before anything has come. */
  initial: S;
  /** The state after an event. */
  reduce: (state: S, event: ChannelEvent<T, S>) => S;
  /** Loads the state at the beginning and after a gap: see `ChannelOptions.load`. */
  load?: (position: string | undefined) => S | PromiseLike<S>;
}

export interface ChannelState<S> {
  state: S;
  /** Who is present. */
  members: Member[];
  /** Why the channel has ended, such as `Closed` or what `load` has thrown. */
  error: unknown;
}

/** The state that the events of the channel at `path` make. Another path or other parameters begin anew. */
export function useChannel<S, T = unknown>(
  socket: Socket,
  path: string | undefined,
  options: UseChannelOptions<S, T>,
): ChannelState<S> {
  const newest = useRef(options);
  newest.current = options;
  const { params, query, initial } = options;
  const [shown, show] = useState<ChannelState<S>>({ state: initial, members: [], error: undefined });
  const key = JSON.stringify([params, query]);
  useEffect(() => {
    const load = newest.current.load && ((position: string | undefined) => newest.current.load!(position));
    const channel: Channel<T, S> = socket.channel(path, newest.current.params, { query: newest.current.query, load });
    let state = newest.current.initial;
    let isOver = false;
    const follow = async () => {
      for await (const event of channel) {
        if (isOver) return;
        state = event.type === "loaded" ? event.data : newest.current.reduce(state, event);
        show({ state, members: [...channel.members.values()], error: undefined });
      }
    };
    show({ state, members: [], error: undefined });
    follow().catch((error: unknown) => isOver || show((last) => ({ ...last, error })));
    return () => {
      isOver = true;
      void channel.return();
    };
  }, [socket, path, key]);
  return shown;
}

export interface CallState<T> {
  isPending: boolean;
  data: T | undefined;
  error: unknown;
}

/** A function that calls `route`, and the state of the last call. Another call, or leaving the page, cancels it. */
export function useCall<T = unknown>(
  route: Route,
): [call: (data?: unknown, options?: CallOptions) => Promise<T | undefined>, state: CallState<T>] {
  const [state, show] = useState<CallState<T>>({ isPending: false, data: undefined, error: undefined });
  const running = useRef<AbortController>(undefined);
  useEffect(() => () => running.current?.abort(), [route]);
  const call = useCallback(
    async (data?: unknown, options: CallOptions = {}) => {
      running.current?.abort();
      const own = (running.current = new AbortController());
      const signal = options.signal ? AbortSignal.any([own.signal, options.signal]) : own.signal;
      show((last) => ({ ...last, isPending: true, error: undefined }));
      try {
        const answer = await route.call<T>(data, { ...options, signal });
        if (!own.signal.aborted) show({ isPending: false, data: answer, error: undefined });
        return answer;
      } catch (error) {
        if (!own.signal.aborted) show((last) => ({ ...last, isPending: false, error }));
        return undefined;
      }
    },
    [route],
  );
  return [call, state];
}
