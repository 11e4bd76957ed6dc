-- Find out which of some commands this Redis user may not run. Runs none of them, and reads nothing of
-- BullMQ's.
--
-- KEYS[1] any key of the queue
-- ARGV[1] qctl's pause note   ARGV[2] qctl's lease: not in KEYS, because a user who may not use them could
--         not run this script then
-- ARGV[3] … the commands, words separated by spaces; "$1" stands for KEYS[1], "$2" and "$3" for the note and
--         the lease
--
-- Answers the commands that are not granted; nil if Redis cannot say (before version 7).

if not redis.acl_check_cmd then
  return false
end

local keys = {KEYS[1], ARGV[1], ARGV[2]}

local function is_granted(command)
  local words = {}
  for word in string.gmatch(command, "%S+") do
    local number = string.match(word, "^%$(%d)$")
    words[#words + 1] = number and keys[tonumber(number)] or word
  end
  -- A command that does not exist under this name raises an error.
  local exists, granted = pcall(redis.acl_check_cmd, unpack(words))
  return exists and granted
end

local refused = {}
for i = 3, #ARGV do
  if not is_granted(ARGV[i]) then
    refused[#refused + 1] = ARGV[i]
  end
end
return refused
