package plan

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/internal/show"
)

// Page writes a stored plan for people: everything that it touches, then what comes next.
func Page(out io.Writer, s *registryv1.StoredPlan, p *registryv1.Plan) error {
	w := &writer{to: out}
	w.line("%s %s on plane %s", Kind(p.GetKind()), count(len(p.GetTenants()), "tenant"), p.GetPlane())
	w.line("")
	w.field("platform", "%s, account %s, region %s", p.GetPlatform(), p.GetAccount(), p.GetRegion())
	w.field("blueprint", "%s %s", p.GetBlueprint(), short(p.GetBlueprintDigest()))
	w.field("chosen by", "%s", strings.Join(p.GetSelectors(), " "))
	w.field("reason", "%s", p.GetReason())
	w.field("made by", "%s at %s", s.GetActor(), s.GetCreatedAt().AsTime().Format(time.RFC3339))
	for _, tier := range p.GetAcceptedTiers() {
		w.field("accepted", "tier %s", tierWord(tier))
	}
	if p.GetKind() == offboard {
		w.field("waits", "%s", waits(p.GetWait().AsDuration()))
	}
	w.policy(p)
	for _, t := range p.GetTenants() {
		w.tenant(p, t)
	}
	w.line("")
	w.line("plan %s, to be carried out until %s", s.GetHash(), s.GetExpiresAt().AsTime().Format(time.RFC3339))
	w.next(s)
	return w.err
}

// Approved is the first approval of a plan that counts; nil where none does.
func Approved(s *registryv1.StoredPlan) *registryv1.Approval {
	for _, a := range s.GetApprovals() {
		if a.GetVoid() == "" {
			return a
		}
	}
	return nil
}

// next says what there is to do with a plan.
func (w *writer) next(s *registryv1.StoredPlan) {
	for _, a := range s.GetApprovals() {
		key := "a key that the plane's machine holds"
		if a.GetKeyFingerprint() != "" {
			key = "their own key " + a.GetKeyFingerprint()
		}
		w.line("approved by %s at %s, with %s: %s", a.GetActor(), a.GetApprovedAt().AsTime().Format(time.RFC3339), key, a.GetReason())
		if a.GetVoid() != "" {
			w.line("  which does not count: %s", a.GetVoid())
		}
	}
	// As many digits as nobody else's plan shares, and as a person can type.
	const typed = len("sha256:") + 16
	hash := s.GetHash()
	if len(hash) > typed {
		hash = hash[:typed]
	}
	if r := s.GetRestore(); r != nil {
		w.line("begun by %s at %s", r.GetActor(), r.GetBegunAt().AsTime().Format(time.RFC3339))
		if r.GetRecordedAt() != nil {
			w.line("carried out at %s: it restores nothing a second time", r.GetRecordedAt().AsTime().Format(time.RFC3339))
			return
		}
	}
	if s.GetNeedsApproval() && Approved(s) == nil {
		w.line("a second person, with a key of their own, must approve it:  fleet approve %s --reason TEXT", hash)
	}
	w.line("carry it out:  fleet apply %s", hash)
}

func (w *writer) tenant(p *registryv1.Plan, t *registryv1.TenantChange) {
	w.line("")
	id := t.GetTenantId()
	if id == "" {
		id = "new, its id is made with it"
	}
	w.line("%s (%s), tier %s", t.GetSlug(), id, tierWord(t.GetIsolationTier()))
	if t.GetAccount() != "" {
		w.field("account", "%s, which it has to itself", t.GetAccount())
		w.link(p, t)
	}
	if t.GetCopyOf() != "" {
		w.field("copy of", "%s: what backups of that tenant hold may be restored to this one, and read by whoever reads here", t.GetCopyOf())
	}
	if t.GetDisplayName() != "" {
		w.field("name", "%s", t.GetDisplayName())
	}
	from := word(t.GetStateFrom())
	if t.GetTenantId() == "" {
		from = "not there"
	}
	if from != word(t.GetStateTo()) {
		w.field("state", "%s -> %s", from, word(t.GetStateTo()))
	}
	switch {
	case t.GetReleaseFrom() == t.GetReleaseTo():
		w.field("release", "%s, which stays", orNone(t.GetReleaseFrom()))
	default:
		w.field("release", "%s", orNone(t.GetReleaseFrom()))
		w.field("", "-> %s", orNone(t.GetReleaseTo()))
	}
	for name, value := range sortedPairs(t.GetLabels()) {
		w.field("label", "%s=%s", name, value)
	}
	if n := len(t.GetMigrations()); n > 0 {
		w.field("migrations", "%d: %s", n, strings.Join(t.GetMigrations(), " "))
	}
	w.field("restarts", "%s", orNone(strings.Join(t.GetRestarts(), " ")))
	w.field("steps", "%s", strings.Join(t.GetSteps(), " "))
	w.stack(t.GetStackChange())
	w.restore(t.GetRestore())
	for _, n := range t.GetNotes() {
		w.field("note", "%s", n)
	}
}

// restore is the backup that a set is put back to.
func (w *writer) restore(r *registryv1.RestoreChange) {
	if r == nil {
		return
	}
	w.field("backup", "%s, as of %s", r.GetBackup(), r.GetTakenAt().AsTime().Format(time.RFC3339))
	w.field("", "of release %s", orNone(r.GetRelease()))
	w.field("", "its manifest is %s", r.GetManifestDigest())
	if r.GetDirectory() != "" {
		w.field("", "in %s", r.GetDirectory())
	}
	switch {
	case r.GetCopiedFrom() != "":
		w.field("copy of", "%s, which it becomes", r.GetCopiedFrom())
		w.field("GIVES UP", "all that it has now, which can't be undone")
	case r.GetLostEntries() > 0:
		w.field("GIVES UP", "what was written since, which can't be undone: by what the registry had seen when this was planned, at least %d of its audit log's entries", r.GetLostEntries())
	default:
		w.field("GIVES UP", "what was written since, which can't be undone: of its audit log the registry knows of no entry")
	}
	if r.GetReplace() {
		w.field("stops", "the set, where it runs")
	} else {
		w.field("stops", "nothing: while the set runs it is not restored")
	}
}

// link is what an administrator has to do besides about the way between the plane's network and that of a tenant's own account, which fleet may
// neither open nor take away.
func (w *writer) link(p *registryv1.Plan, t *registryv1.TenantChange) {
	switch p.GetKind() {
	case registryv1.OperationKind_OPERATION_KIND_PROVISION:
		w.field("link", "administrators of both accounts deploy it: the operation stops at identity until account %s lets the plane in and something leads there from %s, and says what to deploy", t.GetAccount(), p.GetAccount())
	case registryv1.OperationKind_OPERATION_KIND_OFFBOARD:
		w.field("link", "stays until administrators of account %s delete it, and take %s out of the accounts that reach the registry", p.GetAccount(), t.GetAccount())
	default: // it stays as it is
	}
}

// stack is what is changed of a tenant's stack, by whose plan.
func (w *writer) stack(c *registryv1.StackChange) {
	if c == nil {
		return
	}
	if c.GetChangeSet() == "" {
		w.field("stack", "%s, which stays as it is", c.GetStack())
		return
	}
	w.field("stack", "%s", c.GetStack())
	w.field("change set", "%s", c.GetChangeSet())
	if c.GetThenTemplate() != "" {
		w.field("", "has the stack have what it lacks, and runs nothing of it")
		w.field("then", "the template with the SHA-256 %s, a change that CloudFormation can plan by then only; it does nothing that isn't said here:", c.GetThenTemplate())
	}
	for _, line := range c.GetChanges() {
		w.field("", "%s", line)
	}
	if slices.ContainsFunc(c.GetChanges(), addsStore) {
		w.field("back", "to a release without the store that is added its bucket stays in the stack, with what is in it: no component of that release reaches it, no backup and no export has it, and it goes when the tenant leaves")
	}
	for _, line := range c.GetDenied() {
		w.field("DENIED", "%s: what is in it would be lost, and the stack's policy denies it. Who means it lifts the policy first: "+
			`aws cloudformation set-stack-policy --stack-name %s --stack-policy-body '%s'`, line, c.GetStack(), lifted)
	}
}

// addsStore says of a change that it makes a bucket.
func addsStore(change string) bool {
	return strings.HasPrefix(change, "add ") && strings.HasSuffix(change, " (AWS::S3::Bucket)")
}

// lifted is the policy of a stack that keeps nothing. Whoever changes the stack afterwards by fleet puts its own back.
const lifted = `{"Statement":[{"Effect":"Allow","Action":"Update:*","Principal":"*","Resource":"*"}]}`

func sortedPairs(m map[string]string) func(func(string, string) bool) {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return func(yield func(string, string) bool) {
		for _, n := range names {
			if !yield(n, m[n]) {
				return
			}
		}
	}
}

// waits is how long keys are kept after the export, in words.
func waits(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == 0:
		return "not at all: keys are destroyed right after the export"
	case d%day == 0:
		return count(int(d/day), "day") + " between the export and the destruction of keys; until then it can be given up"
	}
	return d.String() + " between the export and the destruction of keys; until then it can be given up"
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// short is a digest as people tell two of them apart.
func short(digest string) string {
	const shown = len("sha256:") + 12
	if len(digest) > shown {
		return digest[:shown]
	}
	return digest
}

// writer keeps the first error.
type writer struct {
	to  io.Writer
	err error
}

// line writes one line, whatever is in it: a plan's texts are its author's, and who approves it reads lines as the program's own. Nor does it
// hold wide gaps, after which a terminal goes on at the left as if with a line of its own.
func (w *writer) line(format string, args ...any) {
	if w.err != nil {
		return
	}
	for i, a := range args {
		if text, is := a.(string); is {
			args[i] = gap.ReplaceAllString(text, " ")
		}
	}
	_, w.err = fmt.Fprintln(w.to, show.Text(fmt.Sprintf(format, args...)))
}

func (w *writer) field(name, format string, args ...any) {
	w.line("  %-11s %s", name, fmt.Sprintf(format, args...))
}

// gap is more blanks than stand between words.
var gap = regexp.MustCompile(`[\p{Zs}\x{2800}\x{3164}]{2,}`)
