-- The event stream, capped as the queue asks (wire format 8; primitive P1).

local function emit(events_key, meta_key, ...)
  local max_len = redis.call("HGET", meta_key, "opts.maxLenEvents") or ""
  -- A cap that is none must not make the script fail after its writes.
  if not string.match(max_len, "^%d+$") or #max_len > 15 then
    max_len = "10000"
  end
  return redis.call("XADD", events_key, "MAXLEN", "~", max_len, "*", ...)
end
