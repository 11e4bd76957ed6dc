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
--@include notes

local function is_for_the_time_being()
  local verb = holder_at(KEYS[4]).verb
  return verb == "drain" or verb == "restart"
end

if redis.call("HEXISTS", KEYS[1], "paused") == 1
    and not (ARGV[2] == "claim" and is_for_the_time_being()) then
  return {0, ""}
end
-- A key of a wrong type fails here, before anything is written.
redis.call("XLEN", KEYS[3])
redis.call("HSET", KEYS[1], "paused", "1")
redis.call("DEL", KEYS[2])
redis.call("SET", KEYS[4], ARGV[1])
return {1, emit(KEYS[3], KEYS[1], "event", "paused")}
