-- Count the unfinished jobs of a queue, and read the id of its last event at the same moment, so that later
-- events explain every later change of the counts. Writes nothing. Wire format 4.2, 6.1, 8.
--
-- KEYS[1] wait   KEYS[2] paused   KEYS[3] active   KEYS[4] prioritized   KEYS[5] delayed
-- KEYS[6] waiting-children   KEYS[7] events   KEYS[8] repeat
-- ARGV[1] how many schedulers are listed at most
--
-- Answers the lengths of KEYS[1] to KEYS[6], the id of the last event or "0-0", and the schedulers with the
-- times when their pending jobs are due.

local found = {}
for i = 1, 3 do
  found[i] = redis.call("LLEN", KEYS[i])
end
for i = 4, 6 do
  found[i] = redis.call("ZCARD", KEYS[i])
end
local newest = redis.call("XREVRANGE", KEYS[7], "+", "-", "COUNT", 1)
found[7] = newest[1] and newest[1][1] or "0-0"
found[8] = redis.call("ZRANGE", KEYS[8], 0, tonumber(ARGV[1]) - 1, "WITHSCORES")
return found
