package main

// delegates takes the doors of the process out that works on one tenant: the kernel's, the supervisor's, the engine's on docker, the registry's. Each is to hold
// when a bug has that process take another tenant for its own.
func delegates() []mutation {
	const confine, filter = "tools/fleet/internal/operate/confine_linux.go", "tools/fleet/internal/operate/sockets_linux.go"
	const token, registry = "tools/fleet/internal/supervise/token.go", "services/registry/internal/server/"
	kernel := these("tools", "./fleet/internal/operate", "TestProcessThatMixesTwoTenantsUpIsRefusedByTheKernel")
	supervisor := these("tools", "./fleet/internal/supervise", "TestToken|TestControlSocketAnswersNobody")
	named := these("tools", "./fleet/internal/supervise", "TestNameThatLeadsElsewhereEndsNoNeighbour|TestUnitThatCannotBeMeantIsRefused")
	first := these("tools", "./fleet/internal/supervise", "TestControlKeyIsSaidToNobodyWhoWasThereFirst")
	provisioner := these("services", "./registry", "TestProvisionerOfATenantReachesThatTenantAlone|TestOfTwoOperators|TestStepsGoInOrder")
	const door = "tools/fleet/internal/platform/docker/delegate.go"
	engine := these("tools", "./fleet/internal/platform/docker", "TestProcessOfOneTenantIsRefusedWhatIsAnothers")
	sockets := these("tools", "./fleet/internal/operate", "TestProcessOfOneTenantReachesNoSocketOfTheMachine")
	around := these("tools", "./fleet/internal/operate", "TestProcessOfOneTenantGoesAroundNoDoor")
	forms := these("tools", "./fleet/internal/operate", "TestFilterRefusesSocketsInEveryForm")
	aloud := these("tools", "./fleet/internal/operate", "TestKernelThatKnowsTooLittleIsToldOfAloud")
	leads := these("tools", "./fleet/internal/operate", "TestProcessOfOneTenantLeadsNobodyElsewhere")
	return []mutation{
		one("the links that the process that works on a tenant makes none of", confine, "ll.AccessFSMakeReg | ll.AccessFSMakeDir", "ll.AccessFSMakeReg | ll.AccessFSMakeSym | ll.AccessFSMakeDir", leads),
		one("the rights of root's that it gives up", "tools/fleet/internal/operate/capabilities_linux.go", "	if _, _, errno := psx.Syscall3(unix.SYS_CAPSET", "	if _, _, errno := psx.Syscall3(unix.SYS_CAPGET", leads),
		one("the sockets of the process that works on a tenant", filter, "	if s.files {", "	if s.files || len(kinds) > 0 {", sockets),
		one("the pairs of sockets of the process that works on a tenant", filter, "	if !s.files {", "	if !s.files && arch == 0 {", around),
		one("the protocols by which it goes around its ports", filter, "	out = append(out, none(protocols...)...)\n", "", around, kernel),
		one("the types of sockets by which it goes around its ports", filter, "	out = append(out, none(kinds...)...)\n", "", around),
		one("the families of sockets by which it goes around its ports", filter, "	out = append(out, none(unix.AF_INET, unix.AF_INET6)...)\n", "", around),
		one("the connections that sending makes", filter, "Val: unix.MSG_FASTOPEN,", "Val: 0,", around),
		one("the upper layers of a connection of its", filter, "Val: unix.TCP_ULP,", "Val: unix.TCP_FASTOPEN_KEY,", around),
		one("the datagrams of who looks up no names", filter, "	if s.names {", "	if s.names || len(kinds) > 0 {", around),
		one("the other forms of calls of the process that works on a tenant", filter, "Cond: bpf.JumpEqual, Val: arch,", "Cond: bpf.JumpNotEqual, Val: 0,", forms),
		one("the word of a kernel that knows no ports", confine, "	case abi < knowsPorts:", "	case abi < 0:", aloud),
		one("the components that the process that works on a tenant has the engine asked for", door, "		if !ok {\n			return refuse(", "		if !ok && name == \"\" {\n			return refuse(", engine),
		one("the words that it has the engine asked in", door, "	words.DisallowUnknownFields()\n", "", engine),
		one("the step that it has the engine asked at", door, "	if !slices.Contains(duringStep[step], asked.Do) {", "	if asked.Do == \"\" && !slices.Contains(duringStep[step], asked.Do) {", engine),
		one("the one thing that it asks for at once", door, "	if _, err := words.Token(); !errors.Is(err, io.EOF) {", "	if _, err := words.Token(); errors.Is(err, io.ErrClosedPipe) {", engine),
		one("the files of the process that works on a tenant", confine, "landlock.RWFiles(\"/dev/null\")", "landlock.RWDirs(\"/\")", kernel),
		one("the ports of the process that works on a tenant", confine, "	for _, port := range d.Ports {", "	for port := range ^uint16(0) {", kernel),
		one("the group of a supervisor's token", token, "	if c.all || c.Group != \"\" && group == c.Group && below(unit, []string{c.Group}) && unit != c.Group {", "	if c.all || c.Group != \"\" && group != unit {", supervisor),
		one("the name of a unit in the group of a token", token, " && below(unit, []string{c.Group}) && unit != c.Group {", " && unit != \"\" && !strings.HasPrefix(unit, \"/\") {", supervisor),
		one("the signature of a supervisor's token", token, "	if !ok || subtle.ConstantTimeCompare([]byte(mac), []byte(sign(key, said))) != 1 {", "	if !ok || subtle.ConstantTimeCompare([]byte(mac), []byte(sign(key, said))) > 1 {", supervisor),
		one("the end of a supervisor's token", token, "!now.Before(until) {", "until.IsZero() && now.IsZero() {", supervisor),
		one("the users that a token may start units as", token, "id == 0 || !slices.Contains(c.Users, id)", "id == 0 && !slices.Contains(c.Users, id)", supervisor),
		one("the programs that a token may start", token, "	case !below(u.Path, c.Programs):", "	case u.Path == \"\":", supervisor),
		one("what a token says of a unit", token, "	if others := u.differs(want); len(others) > 0 {", "	if others := u.differs(want); len(others) > len(u.Name)+100 {", supervisor),
		one("the name of a unit that leads elsewhere", "tools/fleet/internal/supervise/unit.go", " || filepath.Clean(u.Name) != u.Name {", " || filepath.Clean(u.Name) == \"\" {", named),
		one("who made the directory of the control socket", "tools/fleet/internal/supervise/dir.go", "int64(st.Uid) != int64(os.Getuid()) || info.Mode().Perm()&0o077 != 0 {", "int64(st.Uid) < 0 || info.Mode().Perm() == 0 {", first),
		one("the tenant of a provisioner, at tenants", registry+"writes.go", "	if !ch.tenant.IsZero() && ch.tenant != tenant {", "	if !ch.tenant.IsZero() && tenant.IsZero() {", provisioner),
		one("the tenant of a provisioner, at operations", registry+"lease.go", "	if !ch.tenant.IsZero() && ch.tenant != row.Operation.TenantID {", "	if !ch.tenant.IsZero() && row.Operation.TenantID.IsZero() {", provisioner),
		one("the lease that a provisioner works under", registry+"writes.go", "	if !ch.tenant.IsZero() {\n		return nil, errLeaseLost.With", "	if !ch.tenant.IsZero() && lease != nil {\n		return nil, errLeaseLost.With", provisioner),
		one("the authority that is the operator's to put", registry+"writes.go", "!ch.tenant.IsZero() && set.GetCaCertificatesPem() != ", "ch.tenant.IsZero() && set.GetCaCertificatesPem() == \"\" && \"\" != ", provisioner),
		one("the secret of a lease", registry+"lease.go", "	return subtle.ConstantTimeCompare(tokenHash(secret), l.token) == 1", "	return subtle.ConstantTimeCompare(tokenHash(secret), l.token) <= 1", provisioner),
	}
}
