package main

import "slices"

// mutations are all that is taken out, one at a time.
func mutations() []mutation {
	return slices.Concat(links(), tokens(), workloads(), databases(), doors(), messages(), records(), delegates(), spares(), rollouts(), backups(), counters())
}

// one is a mutation of one place.
func one(name, file, old, new string, looks ...look) mutation {
	return mutation{name: name, edits: []edit{{file, old, new}}, looks: looks}
}

// in is a look at all tests of packages.
func in(module, pkgs string) look { return look{module: module, pkgs: pkgs} }

// these is a look at some tests of a package.
func these(module, pkg, run string) look { return look{module: module, pkgs: pkg, run: run} }

// links takes each link out of either chain. That the lists are what they are is a test of its own; here somebody must miss what the
// link does.
func links() []mutation {
	const file = "libs/rpc/chain.go"
	behaviour := look{module: "libs", pkgs: "./rpc", skip: "TestBothChainsStandInTheirOrder"}
	var out []mutation
	for _, line := range []string{
		`{"recover", "outermost, so that a panic in any other link is caught, answered and logged", s.recoverPanic},`,
		`{"limits", "before anything is read: its size, and how slow it may be, are bounded however the rest behaves", s.limit},`,
		`{"cors", "before authn, since a browser's preflight carries no credentials", s.cors},`,
		`{"trace", "before authn, so that refusals have a request id", s.trace},`,
		`{"authn", "before admission, so that load is shed per principal and not per address", s.authenticate},`,
		`{"admission", "innermost: only what would be served takes a place", s.admit},`,
		`{name: "span", reason: "outermost, so that it lasts as long as the call and tells the code that the caller gets", begin: s.spans.start, end: s.spans.end},`,
		`{name: "fault", reason: "around all that refuses, so that every error of every link is mapped, and logged, once", end: s.mapFault},`,
		`{name: "denials", reason: "outside of scope and rule, since what they refuse is what goes on the record", end: s.recordDenial},`,
		`{name: "reads", reason: "beside denials: a read that was answered goes on the record", message: keepRequest, end: s.recordRead},`,
		`{name: "scope", reason: "before the rule, which is asked of a scope", begin: s.makeScope},`,
		`{name: "rule", reason: "before validation, so that who may not call learns nothing of what is valid", begin: s.checkRule},`,
		`{name: "validate", reason: "before the handler and the idempotency key, which is kept for valid requests only", message: s.validate},`,
		`{name: "idempotency", reason: "innermost, for the deed's own transaction to take up", begin: takeKey},`,
	} {
		out = append(out, one("link "+between(line), file, "\t\t"+line+"\n", "", behaviour))
	}
	return append(out,
		one("streams' messages through the links", "libs/rpc/connect.go", "	return g.s.received(g.ctx, g.call, m)", "	return nil", behaviour),
		one("the refusal of methods without a rule", "libs/rpc/rpc.go", "	rules, err := authz.Load(descriptors...)\n	if err != nil {\n		return err\n	}", "	rules, err := authz.Load(descriptors...)\n	if err != nil {\n		rules = authz.Table{}\n	}", behaviour),
		mutation{name: "the refusal of plain routes without a rule", edits: []edit{
			{"libs/rpc/route.go", "case r.Open == \"\" && r.Permission == \"\":", "case r.Pattern == \"\":"},
			{"libs/rpc/route.go", "	if !authz.Carried(r.Permission) {", "	if r.Pattern == \"\" || !authz.Carried(\"audit.verify\") {"},
		}, looks: []look{behaviour}},
	)
}

// between is what stands in the first quotes.
func between(line string) string {
	from := slices.Index([]byte(line), '"') + 1
	to := slices.Index([]byte(line[from:]), '"')
	return line[from : from+to]
}

// tokens takes checks of access tokens out.
func tokens() []mutation {
	const verifier = "libs/authn/verifier.go"
	rpc, authn := in("libs", "./rpc"), in("libs", "./authn")
	return []mutation{
		one("the check of the audience", verifier, "jwt.WithAudience(cfg.Audience),", "", rpc),
		one("the check of the issuer", verifier, "jwt.WithIssuer(cfg.Issuer), ", "", rpc),
		one("the list of algorithms", verifier, "jwt.WithValidMethods([]string{\"ES256\", \"EdDSA\"}),", "", authn),
		one("the algorithm that a key is for", verifier, "if k.Algorithm != t.Method.Alg() {", "if k.Algorithm == \"\" {", authn),
		one("the demand for an end", verifier, "jwt.WithExpirationRequired(), ", "", rpc),
		one("the end of a token that is known", verifier, "		if !v.cfg.Now().Before(c.claims.ExpiresAt) {", "		if c.claims.ExpiresAt.IsZero() {", authn),
		one("the longest life", verifier, " || tc.ExpiresAt.Sub(tc.IssuedAt.Time) > MaxLifetime", "", rpc),
		one("the type of token", verifier, "!ok || !strings.EqualFold(typ, TokenType)", "!ok || typ == \"x\"", rpc),
		one("the headers that bring keys", verifier, "			return nil, errors.New(\"its header carries what no token of ours carries\")", "			continue", rpc),
		one("the check of revocations", verifier, "	return claims, v.cfg.Revocations.Check(claims)\n}", "	return claims, nil\n}", authn),
		one("the check of revocations of a token that is known", verifier, "		return c.claims, v.cfg.Revocations.Check(c.claims)", "		return c.claims, nil", rpc),
		one("the bound on a token's size", verifier, "if len(raw) > maxTokenBytes {", "if len(raw) < 0 {", rpc, authn),
		one("the interval between fetches of keys", "libs/authn/keys.go", "	refetchAfter = 5 * time.Second", "	refetchAfter = -time.Second", authn),
		one("the tenant of a user's token", "libs/rpc/links.go", "		// The key already says whose token it is; this stands when that wall has fallen.\n		if who.claims.Tenant != s.boundTenant() {", "		if false {", rpc),
		one("the tenant of a token that a workload presents", "libs/rpc/links.go", "		case who.claims != nil:\n			if who.claims.Tenant != s.boundTenant() {", "		case who.claims != nil:\n			if false {", rpc),
		one("the end of an open stream at revocation", "libs/rpc/links.go", "	if c.streaming && who.claims != nil {", "	if false {", rpc),
		one("the binding of page tokens to their caller", "libs/page/page.go", "[]any{sc.Plane, sc.Tenant, sc.Workspace, sc.Principal, method, filter}", "[]any{sc.Plane, sc.Tenant, method, filter}", in("libs", "./page")),
		one("the permission of a rule", "libs/rpc/links.go", "		if !sc.Has(c.rule.GetPermission()) {", "		if false {", rpc),
	}
}

// workloads takes checks of services' certificates out.
func workloads() []mutation {
	workload := in("libs", "./workload")
	return []mutation{
		one("the list of workloads of a rule", "libs/rpc/links.go", "if !slices.Contains(c.rule.GetWorkloads(), c.caller.peer.Service) {", "if false && !slices.Contains(c.rule.GetWorkloads(), c.caller.peer.Service) {", in("libs", "./rpc")),
		one("the demand that a workload presents what authorised it", "libs/rpc/links.go", "			return ctx, errNoPresent\n", "			return ctx, nil\n", in("libs", "./rpc")),
		one("the tenant of a certificate", "libs/workload/trust.go", "case !d.Tenant.IsZero() && d.Tenant == t.Tenant && t.TenantRoots != nil:", "case !d.Tenant.IsZero() && t.TenantRoots != nil:", workload),
		one("the plane of a certificate", "libs/workload/trust.go", "case d.Plane != t.Plane:", "case d.Plane == \"\":", workload),
		one("the name of the server that a client wants", "libs/workload/tls.go", "			if got != want {", "			if got.Plane != want.Plane {", workload),
		one("the proof of a peer's chain", "libs/workload/trust.go", "	if err != nil {\n		return proof{}, fmt.Errorf(\"the peer claims to be %s, and its certificate doesn't prove it: %w\", identity, err)\n	}", "	if err != nil {\n		verified = [][]*x509.Certificate{{chain[0]}}\n	}", workload),
		one("the control plane's list of workloads", "libs/rpc/grpc.go", "name != \"\" && slices.Contains(c.rule.GetWorkloads(), name) {", "name != \"\" || slices.Contains(c.rule.GetWorkloads(), name) {", these("services", "./registry", "TestOnlyTheWorkloads|TestReport")),
		one("the one service that reports for a set", "services/registry/internal/server/reports.go", "	if who.Service != s.Publisher.Reporter(who.Tenant) {", "	if who.Service == \"\" {", these("services", "./registry", "TestOnlyTheWorkloads|TestReport")),
	}
}
