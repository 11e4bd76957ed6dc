-- Write events, and cap the stream at the length that the queue sets (wire format 8; primitives P1, P2). base
-- is the queue's key prefix, "bull:q:".

-- Answers how many events the queue keeps, as text (P1). If no number is set, sets 10,000, as BullMQ does.
-- max_len: the value of the field opts.maxLenEvents of meta, or false if meta has no such field. If max_len is
-- nil, max_events reads the field itself.
local function max_events(base, max_len)
  if max_len == nil then
    max_len = redis.call("HGET", base .. "meta", "opts.maxLenEvents")
  end
  if not max_len then
    redis.call("HSET", base .. "meta", "opts.maxLenEvents", "10000")
  end
  -- A value that is not a number must not make the script fail after its writes.
  if not max_len or not string.match(max_len, "^%d+$") or #max_len > 15 then
    return "10000"
  end
  return max_len
end

local trimmed = {}

-- Trims a stream (P2) once per call, before the call writes its first event. Clients that wait for events get
-- them only when the call ends. So if the queue keeps only a few events, a later trim could delete events of
-- this call that nobody has read yet. max_len: see max_events.
local function trim_events(base, max_len)
  if not trimmed[base] then
    trimmed[base] = true
    redis.call("XTRIM", base .. "events", "MAXLEN", "~", max_events(base, max_len))
  end
end

-- Answers the id of the event.
local function emit(base, name, ...)
  trim_events(base)
  return redis.call("XADD", base .. "events", "*", "event", name, ...)
end
