-- The event stream, capped as the queue asks (wire format 8; primitive P1).

local function emit(events_key, meta_key, ...)
  local max_len = redis.call("HGET", meta_key, "opts.maxLenEvents") or "10000"
  return redis.call("XADD", events_key, "MAXLEN", "~", max_len, "*", ...)
end
