-- Gives back what a slice holds beyond what is kept. The kept amounts are absolute, so a repetition changes nothing.
-- KEYS: reservation, one per limit. ARGV: now (tests only), holder, per limit: kind keep furthest end. Answers {1, now}
local held, until_time = held_by(KEYS[1])
if not held or held == 'done' then
    return {1, now}
end
for index = 1, #KEYS - 1 do
    local at = 3 + (index - 1) * 4
    local kind, keep = ARGV[at], tonumber(ARGV[at + 1])
    if held[index] > keep then
        if kind == 's' then
            free(KEYS[index + 1], ARGV[2], keep, held[index])
        else
            correct(kind, KEYS[index + 1], keep - held[index], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]))
        end
        held[index] = keep
    end
end
hold(KEYS[1], until_time, list_of(held))
return {1, now}
