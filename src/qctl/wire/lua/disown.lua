-- Delete a lease or a pause note (see wire/notes.py) if it still belongs to the owner.
--
-- KEYS[1] the lease or note
-- ARGV[1] the owner
--
-- Answers 1 if the key was deleted, else 0.
--@include json

if decoded(redis.pcall("GET", KEYS[1])).owner == ARGV[1] then
  return redis.call("DEL", KEYS[1])
end
return 0
