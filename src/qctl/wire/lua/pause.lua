-- Pause a queue the way its own clients do, so that a resume by any of them finds every job: for BullMQ 6
-- set the flag; for older versions also move ready jobs to the paused list. Wire format 5.20, 10.2.
--
-- A queue that is already paused keeps its owner, but jobs that were left in wait move to the paused list
-- if that list is used. With many jobs in both lists this takes several calls. The note is written before
-- the flag, and the flag before any job is moved: if the caller dies half way, the queue is paused and its
-- note says by whom. A running queue never has jobs in a list that no worker reads.
--
-- KEYS[1] meta   KEYS[2] wait   KEYS[3] paused   KEYS[4] marker   KEYS[5] events
-- KEYS[6] qctl's pause note
-- ARGV[1] the note: who pauses, as JSON   ARGV[2] its owner
-- ARGV[3] "claim" to make the pause ours even if a drain has paused the queue; "take over" for the same,
--         unless somebody else has paused or resumed it since; "again" to pause a queue that was resumed,
--         but only if the note still is ours; else ""
-- ARGV[4] "list" to use the paused list whatever the version of the last Queue object; else ""
-- ARGV[5] how many jobs this call moves at most
--
-- Answers {word, id of the event}: "paused" (by this call), "ours" (by an earlier call of ours, whose event
-- it is), "others" (by somebody else), "resumed" (somebody resumed it and deleted our note; nothing was
-- written), "more" (call again).
--@include events
--@include notes
--@include paused_list
--@include merge_lists
--@include overtaken

-- Whether the pause of a drain becomes ours.
local function is_claimed(holder)
  if holder.verb ~= "drain" and holder.verb ~= "restart" then
    return false
  end
  return ARGV[3] == "claim" or (ARGV[3] == "take over" and not is_overtaken(KEYS[5], holder))
end

-- Moves ready jobs to where a pause keeps them. Answers whether all of them are there now.
local function place_ready()
  if ARGV[4] == "" and redis.call("EXISTS", KEYS[3]) == 0 and is_flag_enough(KEYS[1]) then
    return true
  end
  local merged = merge_ready(KEYS[2], KEYS[3], tonumber(ARGV[5]), true)
  if merged == KEYS[2] and redis.call("EXISTS", KEYS[2]) == 1 then
    redis.call("RENAME", KEYS[2], KEYS[3])
  end
  return merged ~= nil
end

-- A key of another type fails here, before anything is written.
redis.call("LLEN", KEYS[2])
redis.call("LLEN", KEYS[3])
redis.call("ZCARD", KEYS[4])
redis.call("XLEN", KEYS[5])

local holder = holder_at(KEYS[6])
local is_ours = holder.owner == ARGV[2]
if redis.call("HEXISTS", KEYS[1], "paused") == 1 then
  if not place_ready() then
    return {"more", ""}
  elseif is_ours and holder.event then
    return {"ours", holder.event}
  elseif not is_ours and not is_claimed(holder) then
    if ARGV[3] == "claim" then
      -- Listeners hear that somebody wants it paused, as with BullMQ.
      emit(KEYS[5], KEYS[1], "event", "paused")
    end
    return {"others", ""}
  end
elseif ARGV[3] == "again" and not is_ours then
  return {"resumed", ""}
end

redis.call("SET", KEYS[6], ARGV[1])
redis.call("HSET", KEYS[1], "paused", "1")
redis.call("DEL", KEYS[4])
if not place_ready() then
  return {"more", ""}
end
local event = emit(KEYS[5], KEYS[1], "event", "paused")
redis.call("SET", KEYS[6], string.sub(ARGV[1], 1, -2) .. ',"event":"' .. event .. '"}')
return {"paused", event}
