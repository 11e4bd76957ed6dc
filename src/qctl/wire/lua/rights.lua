-- Check which commands this Redis user may not run. The script runs none of them, and reads no key.
--
-- KEYS[1] any key of the queue
-- ARGV[1] the key of qctl's pause note   ARGV[2] the key of qctl's lease (wire/notes.py). These two are not in
--         KEYS, because a user needs rights on all KEYS to run this script
-- ARGV[3] … the commands, with spaces between the words; "$1" stands for KEYS[1], "$2" for ARGV[1], "$3" for
--         ARGV[2]
--
-- Answers the commands that the user may not run, or nil if Redis is older than 7 and cannot check.

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
