-- Resume a queue. First what BullMQ 5 left in the paused list is appended to the tail of wait, in
-- order (so it runs next, as with BullMQ 6), at most ARGV[2] jobs a call; the call that empties the
-- list clears the flag, wakes the workers and tells listeners. Call again until it answers 0 left.
-- The flag goes last, so that a caller who dies half way leaves a paused queue that anybody can
-- resume, and no running queue with jobs in a list that nobody reads.
-- Wire format 5.20, 10.2.
--
-- KEYS[1] meta   KEYS[2] wait   KEYS[3] paused   KEYS[4] prioritized   KEYS[5] delayed
-- KEYS[6] marker   KEYS[7] events   KEYS[8] active   KEYS[9] qctl's pause note
-- ARGV[1] "" to resume whoever paused it; an owner to resume only that owner's pause
-- ARGV[2] most jobs to move
--
-- Answers {jobs left in paused, jobs moved, 1 if this call cleared the flag, id of the event or ""};
-- {-1, 0, 0, ""} when the pause is not the owner's, and then nothing is written.
--@include markers
--@include events
--@include notes

if ARGV[1] ~= "" and holder_at(KEYS[9]).owner ~= ARGV[1] then
  return {-1, 0, 0, ""}
end
-- A key of a wrong type fails here, before anything is written.
redis.call("ZCARD", KEYS[5])
redis.call("ZCARD", KEYS[6])
redis.call("XLEN", KEYS[7])
redis.call("LLEN", KEYS[8])

local ids = redis.call("LRANGE", KEYS[3], 0, tonumber(ARGV[2]) - 1)
if #ids > 0 then
  redis.call("RPUSH", KEYS[2], unpack(ids))
  redis.call("LTRIM", KEYS[3], #ids, -1)
end
local left = redis.call("LLEN", KEYS[3])
if left > 0 then
  return {left, #ids, 0, ""}
end

local was_paused = redis.call("HDEL", KEYS[1], "paused")
redis.call("DEL", KEYS[9])
if not is_blocked(KEYS[1], KEYS[8]) then
  if redis.call("EXISTS", KEYS[2], KEYS[4]) > 0 then
    mark_base(KEYS[6])
  else
    mark_delayed(KEYS[6], KEYS[5])
  end
end
local event = ""
if was_paused == 1 then
  event = emit(KEYS[7], KEYS[1], "event", "resumed")
end
return {0, #ids, was_paused, event}
