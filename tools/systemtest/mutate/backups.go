package main

// backups takes out what has a backup be good for something: what a restore keeps aside, what the trial of one compares, which is kept; and what keeps a
// proof of isolation from proving walls that nobody tried.
func backups() []mutation {
	const local, network = "tools/fleet/internal/platform/local/", "tools/fleet/internal/isolation/network.go"
	trial := these("tools", "./fleet/internal/platform/local", "TestTrialHolds")
	proof := these("tools", "./fleet/internal/isolation", "TestOnlyCalls|TestRefusalOfTheNetwork")
	return []mutation{
		one("the removal of what the restore before left aside", local+"restore.go", "os.Lstat(p.restoringFile(s)); errors.Is(err, fs.ErrNotExist)", "os.Lstat(p.restoringFile(s)); errors.Is(err, fs.ErrExist)",
			these("tools", "./fleet/internal/platform/local", "TestNextRestore")),
		one("the digests of stores in a backup's manifest", local+"contents.go", "	case m.Stores[i] != have:", "	case have.Store == \"\":", trial),
		one("what rows name in a backup's stores", local+"contents.go", "			if !c.names[name][n] {", "			if n == \"\" {", trial),
		one("the refusal to clear away keys that are in use", local+"scratch.go", "err != nil || len(held) > 0 {", "err != nil && len(held) > 0 {", these("tools", "./fleet/internal/platform/local", "TestNoCopyOfKeys")),
		one("the keeping of a backup that was tried out", "tools/fleet/internal/backup/backup.go", "		if name == verified {", "		if name == verified && name == \"\" {", these("tools", "./fleet/internal/backup", "TestNewestBackup")),
		one("the calls that were never made", network, "ctx.Err() != nil || !lost(err)", "ctx.Err() != nil && !lost(err)", proof),
		one("the control from the component that is kept out", network, "dialEach(c.Dial, from.Addresses)", "dialEach(FromHere, from.Addresses)", proof),
		one("the headers of telemetry that stay behind", local+"local.go", "strings.HasSuffix(name, \"_HEADERS\") || ", "", these("tools", "./fleet/internal/platform/local", "TestNoToken")),
	}
}
