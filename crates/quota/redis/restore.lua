-- Raises budgets to what the ledger knows and marks the organisation as known. KEYS: marker, one per budget. ARGV: now (tests only), per
-- budget: spent end. Answers {1, now}
for index = 2, #KEYS do
    local at = 2 + (index - 2) * 2
    local spent = tonumber(ARGV[at])
    local counted = tonumber(redis.call('GET', KEYS[index])) or 0
    if spent > counted then
        keep_budget(KEYS[index], spent, tonumber(ARGV[at + 1]))
    end
end
redis.call('SET', KEYS[1], '1')
return {1, now}
