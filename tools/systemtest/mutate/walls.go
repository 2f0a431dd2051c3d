package main

// databases takes policies, grants and scopes of transactions out.
func databases() []mutation {
	catalogue := in("services", "./migrate")
	rows := these("tools", "./systemtest", "TestRoleSeesOneWorkspaceOrNone|TestRoleOfAServiceCanDoItsWork")
	iam, integrations := "services/iam/migrations/00001_iam.sql", "services/integrations/migrations/00001_integrations.sql"
	discovery := "services/discovery/migrations/00001_discovery.sql"
	return []mutation{
		one("row-level security of iam.members", iam, "ALTER TABLE iam.members ENABLE ROW LEVEL SECURITY;", "", catalogue),
		one("FORCE on iam.workspaces", iam, "ALTER TABLE iam.workspaces FORCE ROW LEVEL SECURITY;", "", catalogue),
		one("the workspace in the policy of iam.members", iam, "CREATE POLICY own_workspace ON iam.members TO role_iam\n    USING (workspace_id = (SELECT a3.current_workspace())) WITH CHECK (workspace_id = (SELECT a3.current_workspace()));", "CREATE POLICY own_workspace ON iam.members TO role_iam USING (true) WITH CHECK (true);", catalogue, rows),
		one("row-level security of integrations.integrations", integrations, "ALTER TABLE integrations.integrations ENABLE ROW LEVEL SECURITY;", "", catalogue),
		one("the workspace in the policy of integrations.integrations", integrations, "CREATE POLICY own_workspace ON integrations.integrations TO role_integrations\n    USING (workspace_id = (SELECT a3.current_workspace()))", "CREATE POLICY own_workspace ON integrations.integrations TO role_integrations\n    USING (true)", catalogue, rows),
		one("row-level security of all of discovery's tables", discovery, "        EXECUTE format('ALTER TABLE discovery.%I ENABLE ROW LEVEL SECURITY', t);\n", "", catalogue),
		one("the workspace in the policies of discovery's tables", discovery, "            USING (workspace_id = (SELECT a3.current_workspace())) WITH CHECK", "            USING (true) WITH CHECK", catalogue, rows),
		one("row-level security of audit.entries", "services/audit/migrations/00001_log.sql", "ALTER TABLE audit.entries ENABLE ROW LEVEL SECURITY;", "", catalogue),
		one("the least of grants: discovery reads iam's members", iam, "GRANT USAGE ON SCHEMA iam TO role_iam, role_iam_tenant;", "GRANT USAGE ON SCHEMA iam TO role_iam, role_iam_tenant, role_discovery;\nGRANT SELECT ON iam.members TO role_discovery;", catalogue),
		one("the error where no workspace is set", "libs/pg/migrations/00001_scope.sql", "        RAISE EXCEPTION 'no workspace is set in this transaction' USING ERRCODE = 'insufficient_privilege';", "        RETURN NULL;", in("libs", "./pg")),
		one("the end of a workspace with its transaction", "libs/pg/pg.go", "'%x-%x-%x-%x-%x', true)", "'%x-%x-%x-%x-%x', false)", in("libs", "./pg")),
		one("idempotency keys of deeds", "libs/pg/deed.go", "		if !ok {\n			var err error", "		if !ok || true {\n			var err error", in("libs", "./pg")),
		one("the caller in an idempotency key", "libs/pg/deed.go", "	if string(seen) != string(digest[:]) {", "	if len(seen) == 0 {", in("libs", "./pg")),
	}
}

// doors takes what stands at the doors out: at the gateway, at the registry, on the worker's way out, at the stores.
func doors() []mutation {
	gateway := these("services", "./gateway/...", "TestNoClientSpeaks|TestHeaders|TestUpstreamSees|TestHosts|TestPath|TestSlug|TestHost|TestBadSnapshot|TestAddress")
	turns := these("services", "./gateway/...", "TestNeighbourIsAnswered|TestSourceThatFloods")
	return []mutation{
		one("the stripping of headers at the gateway", "services/gateway/internal/proxy/headers.go", "		if name == \"\" || isIdentity(name) {", "		if name == \"\" {", gateway),
		one("the end of the host at the gateway", "services/gateway/internal/routes/host.go", " || host[n+1:] != d.name", "", gateway),
		one("the refusal of ambiguous paths at the gateway", "services/gateway/internal/proxy/proxy.go", " || ambiguousPath(r.URL.Path, r.URL.RawPath)", "", gateway),
		one("the end of connections with ambiguous lengths", "services/gateway/internal/proxy/proxy.go", "(r.ProtoMinor == 0 || len(r.TransferEncoding) > 0 || r.Method == http.MethodConnect)", "r.Method == http.MethodConnect", gateway),
		one("the turns of tenants at the gateway", "services/gateway/internal/proxy/proxy.go", "	if !p.begin(w, r, route.Load) {", "	if start.IsZero() {", turns),
		one("the turns of connections over which calls are refused", "services/gateway/internal/turns/conn.go", "	if until := c.until.Load(); until != 0 && err == nil {", "	if until := c.until.Load(); until < 0 {", these("services", "./gateway/...", "TestConnection")),
		one("the turns of handshakes", "services/gateway/internal/door/door.go", "return nil, cfg.Welcome(hello)", "return nil, nil", turns),
		one("the turns of a tenant's sources", "services/gateway/internal/turns/queue.go", "	q.round.MoveToBack(first)\n", "", turns),
		one("the signature of snapshots", "libs/snapshot/snapshot.go", " || !ed25519.Verify(key, dsse.PAE(payloadType, raw), signature)", " || key == nil", in("libs", "./snapshot")),
		one("the version of snapshots", "libs/snapshot/snapshot.go", "	if snap.GetVersion() < have {", "	if have < 0 {", in("libs", "./snapshot")),
		one("the plane of snapshots", "libs/snapshot/snapshot.go", "	if snap.GetPlane() != v.plane {", "	if v.plane == \"\" {", in("libs", "./snapshot")),
		one("the signature of documents", "libs/dsse/dsse.go", "	if !v.Verifier.Verify(data, sig) {", "	if sig == nil {", in("libs", "./dsse")),
		one("the type of signed documents", "libs/dsse/dsse.go", "	if e.PayloadType != payloadType {", "	if e.PayloadType == \"\" {", in("libs", "./dsse")),
		one("the refusal of routes to metadata services", "services/registry/internal/placement/placement.go", "	case addr.IsLinkLocalUnicast(), addr.IsMulticast(), slices.Contains(metadata, addr), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):", "	case addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):", in("services", "./registry/internal/placement")),
		one("the networks that routes may lead to", "services/registry/internal/placement/placement.go", "	case !slices.ContainsFunc(p.Networks, func(n netip.Prefix) bool { return n.Contains(addr) }):", "	case len(p.Networks) == 0:", in("services", "./registry/internal/placement")),
		one("the refusal of loopback on the worker's way out", "services/discoveryworker/internal/egress/forms.go", "\"127.0.0.0/8\", ", "", in("services", "./discoveryworker/internal/egress")),
		one("the form of objects' keys", "libs/blob/blob.go", "		case segment == \"\" || segment == \".\" || segment == \"..\":", "		case segment == \"\":", in("libs", "./blob")),
		one("the tenant of a mark", "libs/binding/mark.go", "	case found.Tenant != want.Tenant:", "	case found.Tenant.IsZero():", in("libs", "./binding")),
		one("the refusal of unknown variables", "libs/config/config.go", "	problems = append(problems, refuseUnknown(role, fields, values)...)\n", "", in("libs", "./config")),
	}
}

// messages takes what makes the queue's messages believable out.
func messages() []mutation {
	const verify = "libs/queue/verify.go"
	queue := in("libs", "./queue")
	runs := these("services", "./discovery/internal/runs", "TestLateAttempt|TestOneMessage|TestSealingTwice|TestOnlyASlices|TestMessages")
	return []mutation{
		one("the signature of envelopes", verify, " || !ed25519.Verify(key, dsse.PAE(payloadType, signed.GetEnvelope()), signed.GetSignature())", " || dsse.PAE(payloadType, key) == nil", queue),
		one("the digest of payloads", verify, "subtle.ConstantTimeCompare(digest[:], e.digest[:]) != 1", "subtle.ConstantTimeCompare(digest[:], digest[:]) != 1", queue),
		one("the expiry of envelopes", verify, "	case !now.Before(e.expires):", "	case e.expires.IsZero():", queue),
		one("the tenant of envelopes", verify, "	case e.tenant != v.cfg.Tenant:", "	case e.tenant.IsZero():", queue),
		one("the plane of envelopes", verify, "	case e.plane != v.cfg.Plane:", "	case e.plane == \"\":", queue),
		one("the issuer of envelopes", verify, "	case e.issuer != v.cfg.Issuer:", "	case e.issuer == \"\":", queue),
		one("the fence before an attempt begins", "services/discovery/internal/runs/ingest.go", "		case a < row.Attempt, a == row.Attempt && job != row.JobID:", "		case a < 0:", runs),
		one("the fence before an attempt writes", "services/discovery/internal/runs/ingest.go", " || row.Attempt != int32(attempt) {", " || int32(attempt) < 0 {", runs),
	}
}

// records takes what makes the record believable, and secrets invisible, out.
func records() []mutation {
	schema := these("services", "./audit", "TestProducers|TestNoRole|TestEvenWho|TestInbox|TestDeedWithout")
	return []mutation{
		one("the event of a transfer, in its own transaction", "services/iam/internal/server/workspaces.go", "	err = record.Append(ctx, tx, record.Event{\n		Action: \"iam.workspace.owner_transferred\",", "	_ = record.Build(ctx, sc, record.Event{\n		Action: \"iam.workspace.owner_transferred\",", these("services", "./iam/internal/server", "TestTransfer")),
		one("the bound on the log's backlog", "services/audit/migrations/00001_log.sql", "    IF NEW.seq - drained > most_rows THEN", "    IF false THEN", schema),
		one("the trigger that keeps entries as they are", "services/audit/migrations/00001_log.sql", "ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER append_only;", "ALTER TABLE audit.entries DISABLE TRIGGER append_only;", schema),
		one("the redaction of secret fields", "libs/redact/redact.go", "		case Secret(f):\n			m.Clear(f)\n", "", in("libs", "./redact")),
		one("the redaction in events", "libs/record/record.go", "Marshal(redact.Clear(m))", "Marshal(func() proto.Message { redact.Clear(m); return m }())", in("libs", "./record")),
		one("the opaqueness of unknown errors", "libs/fault/codes.go", "	return &Error{Kind: Internal, Message: opaque, Cause: err}", "	return &Error{Kind: Internal, Message: err.Error(), Cause: err}", in("libs", "./fault ./rpc")),
	}
}
