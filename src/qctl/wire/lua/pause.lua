-- Pause a queue: set the flag, drop the marker, tell listeners. No list is renamed, whatever the
-- version of the other clients, since BullMQ 5's rename can overwrite jobs.
-- Wire format 5.20, 10.2.
--
-- KEYS[1] meta   KEYS[2] marker   KEYS[3] events   KEYS[4] qctl's pause note
-- ARGV[1] the note: who pauses, as JSON
-- ARGV[2] "claim" to make it ours also when a drain has paused it for the time being; else ""
--
-- Answers {1, id of the event} when this call paused or claimed it, {0, ""} when it was paused
-- already; then nothing is written.
--@include events

local function is_for_the_time_being()
  local note = redis.call("GET", KEYS[4])
  local verb = note and cjson.decode(note).verb
  return verb == "drain" or verb == "restart"
end

if redis.call("HEXISTS", KEYS[1], "paused") == 1
    and not (ARGV[2] == "claim" and is_for_the_time_being()) then
  return {0, ""}
end
redis.call("HSET", KEYS[1], "paused", "1")
redis.call("DEL", KEYS[2])
redis.call("SET", KEYS[4], ARGV[1])
return {1, emit(KEYS[3], KEYS[1], "event", "paused")}
