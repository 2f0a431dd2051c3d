package licensing_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/licence"
	"a3os.app/libs/licence/held"
	"a3os.app/libs/licence/licencetest"
	"a3os.app/libs/pg"
	"a3os.app/libs/tlog"
	"a3os.app/libs/usage"

	"a3os.app/services/audit/internal/audittest"
	"a3os.app/services/audit/internal/licensing"
)

// set is a set's database, with a clock that a test turns.
type set struct {
	*audittest.Database
	tenant id.Tenant
	now    time.Time
	keeper *licensing.Keeper
	db     *pg.DB
	held   *held.Licence
}

// signer is one of the set's log, with a new key.
func (s *set) signer(t *testing.T) *tlog.Signer {
	t.Helper()
	key, _, err := tlog.NewKey(tlog.Origin("dev", s.tenant))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := tlog.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func newSet(t *testing.T) *set {
	t.Helper()
	s := &set{Database: audittest.New(t), tenant: id.NewTenant(), now: time.Now()}
	s.db = s.DB(t)
	s.restart(t)
	return s
}

// restart is a new process over the same database.
func (s *set) restart(t *testing.T) {
	t.Helper()
	clock := func() time.Time { return s.now }
	s.held = held.New(s.db, licencetest.Verifier(t), s.tenant, clock)
	s.keeper = licensing.New(licensing.Config{DB: s.db, Held: s.held, Verifier: licencetest.Verifier(t), Tenant: s.tenant, Now: clock})
}

func (s *set) look(t *testing.T) licensing.Standing {
	t.Helper()
	out, err := s.keeper.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *set) take(t *testing.T, l *registryv1.Licence) {
	t.Helper()
	if err := s.keeper.Take(t.Context(), licencetest.Sign(t, l)); err != nil {
		t.Fatal(err)
	}
}

// told are the actions on the record since the last time, in order.
func (s *set) told(t *testing.T) []string {
	t.Helper()
	conn := s.As(t, "role_audit")
	rows, err := conn.Query(t.Context(), "DELETE FROM audit.inbox RETURNING seq, body")
	if err != nil {
		t.Fatal(err)
	}
	found := map[int64]string{}
	for rows.Next() {
		var seq int64
		var body []byte
		if err := rows.Scan(&seq, &body); err != nil {
			t.Fatal(err)
		}
		e := &auditv1.Event{}
		if err := proto.Unmarshal(body, e); err != nil {
			t.Fatal(err)
		}
		if e.GetActor() != "workload:audit" || e.GetTarget() == "" {
			t.Errorf("the event says %v", e)
		}
		found[seq] = e.GetAction()
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	var out []string
	for _, seq := range slices.Sorted(keys(found)) {
		out = append(out, found[seq])
	}
	return out
}

func keys(m map[int64]string) func(func(int64) bool) {
	return func(yield func(int64) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (s *set) wantTold(t *testing.T, want ...string) {
	t.Helper()
	if got := s.told(t); !slices.Equal(got, want) {
		t.Errorf("on the record is %v, want %v", got, want)
	}
}

// allows asks as a service of the set does, through a role of its own.
func (s *set) allows(t *testing.T, role string) error {
	t.Helper()
	return held.New(s.Open(t, role), licencetest.Verifier(t), s.tenant, func() time.Time { return s.now }).Allows(t.Context(), "discovery")
}

func awaitReady(t *testing.T, keeper *licensing.Keeper) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	tooLong := time.After(10 * time.Second)
	for keeper.Ready() != nil {
		select {
		case <-tick.C:
		case <-tooLong:
			t.Fatal(keeper.Ready())
		}
	}
}

// A new set serves once it holds the licence that was laid down for it: what is asked of it then is not refused for want of one.
func TestSetIsReadyOnceTheLicenceThatWasLaidDownIsHeld(t *testing.T) {
	s := newSet(t)
	laid := filepath.Join(t.TempDir(), "licence")
	if err := os.WriteFile(laid, licencetest.Sign(t, licencetest.Whole(s.tenant, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	keeper := licensing.New(licensing.Config{DB: s.db, Held: s.held, Verifier: licencetest.Verifier(t), Tenant: s.tenant, Path: laid, Now: func() time.Time { return s.now }})
	// Whoever is slow to take it is one whose row another has.
	slow, err := s.As(t, "role_audit").Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Exec(t.Context(), "SELECT FROM audit.licence_watch FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- keeper.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if keeper.Ready() == nil || s.allows(t, "role_discovery") == nil {
		t.Error("it is ready while it doesn't hold its licence")
	}
	if err := slow.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, keeper)
	if err := s.allows(t, "role_discovery"); err != nil {
		t.Errorf("it is ready, and refuses what its licence allows: %v", err)
	}
}

// No licence where one may lie, and one that is no licence, keep no set from serving.
func TestSetIsReadyWithoutALicence(t *testing.T) {
	for name, content := range map[string]string{"none": "", "no licence": "not a licence"} {
		t.Run(name, func(t *testing.T) {
			s := newSet(t)
			laid := filepath.Join(t.TempDir(), "licence")
			if content != "" {
				if err := os.WriteFile(laid, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			keeper := licensing.New(licensing.Config{DB: s.db, Held: s.held, Verifier: licencetest.Verifier(t), Tenant: s.tenant, Path: laid, Now: func() time.Time { return s.now }})
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- keeper.Run(ctx) }()
			awaitReady(t, keeper)
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// Rows C46 and C47: what is handed over and is not a later, good licence of this tenant leaves the one that is held, is on the record
// once, and is told to the control plane.
func TestRefusedLicenceLeavesTheLastGoodOne(t *testing.T) {
	s := newSet(t)
	first, second := licencetest.Whole(s.tenant, 1), licencetest.Whole(s.tenant, 2)
	s.take(t, first)
	s.take(t, second)
	s.take(t, second) // again: nothing changes
	s.wantTold(t, "licence.installed", "licence.installed")
	same := licencetest.Whole(s.tenant, 2)
	good := licencetest.Sign(t, licencetest.Whole(s.tenant, 3))
	bad := map[string][]byte{
		"older": licencetest.Sign(t, first), "another of the same serial": licencetest.Sign(t, same), "another tenant's": licencetest.Sign(t, licencetest.Whole(id.NewTenant(), 9)),
		"cut short": good[:len(good)/2], "changed": []byte(strings.Replace(string(good), `"sig":"`, `"sig":"AAAA`, 1)), "nothing": {},
	}
	for what, file := range bad {
		for range 3 {
			if err := s.keeper.Take(t.Context(), file); err == nil {
				t.Errorf("%s was taken", what)
			}
			s.restart(t)
		}
		if got := s.told(t); !slices.Equal(got, []string{"licence.refused"}) {
			t.Errorf("%s, handed over three times: on the record is %v", what, got)
		}
		if err := s.keeper.Take(t.Context(), file); err == nil {
			t.Errorf("%s was taken", what)
		}
		if st := s.look(t); st.Worth.Licence.GetSerial() != 2 || st.Report().GetRefused() == "" || st.Report().GetState() != registryv1.LicenceState_LICENCE_STATE_VALID {
			t.Errorf("after %s it holds %v and reports %v", what, st.Worth.Licence, st.Report())
		}
	}
	if err := s.allows(t, "role_discovery"); err != nil {
		t.Error(err)
	}
	s.take(t, licencetest.Whole(s.tenant, 3))
	if st := s.look(t); st.Worth.Licence.GetSerial() != 3 || st.Refused != "" {
		t.Errorf("after a good one it holds %v, refused %q", st.Worth.Licence, st.Refused)
	}
	t.Attr("row", "C46 2")
	t.Attr("row", "C47 4")
}

// The next licence is installed weeks early: the present one goes on, and is not said to expire, until the next one holds, in a new process as
// well. Where there is a gap between them, the present one's end is told.
func TestNextLicenceIsInstalledEarly(t *testing.T) {
	s := newSet(t)
	const day = 24 * time.Hour
	ends := s.now.Add(20 * day)
	present, next := licencetest.Whole(s.tenant, 1), licencetest.Whole(s.tenant, 2)
	present.ValidUntil, present.GraceDays = timestamppb.New(ends), 1
	next.ValidFrom, next.ValidUntil = timestamppb.New(ends.Add(-time.Hour)), timestamppb.New(ends.Add(365*day))
	s.take(t, present)
	want := func(serial, following int64, state registryv1.LicenceState) {
		t.Helper()
		if err := s.allows(t, "role_discovery"); err != nil {
			t.Error(err)
		}
		st := s.look(t)
		if r := st.Report(); r.GetSerial() != serial || r.GetNextSerial() != following || r.GetState() != state {
			t.Errorf("it reports %v, want serial %d, then %d, %s", r, serial, following, state)
		}
		if told := strings.Contains(st.Message(), "The next one is here"); told != (following != 0) {
			t.Errorf("its message is %q", st.Message())
		}
	}
	want(1, 0, registryv1.LicenceState_LICENCE_STATE_EXPIRING)
	s.take(t, next)
	want(1, 2, registryv1.LicenceState_LICENCE_STATE_VALID)
	s.take(t, next) // again: nothing changes
	s.restart(t)
	want(1, 2, registryv1.LicenceState_LICENCE_STATE_VALID)
	if err := s.keeper.Take(t.Context(), licencetest.Sign(t, licencetest.Whole(s.tenant, 1))); !errors.Is(err, licence.ErrOlder) {
		t.Errorf("one that is older than the next was taken: %v", err)
	}
	s.now = ends.Add(-time.Hour)
	want(2, 0, registryv1.LicenceState_LICENCE_STATE_VALID)

	late := licencetest.Whole(s.tenant, 3)
	late.ValidFrom, late.ValidUntil = timestamppb.New(ends.Add(366*day)), timestamppb.New(ends.Add(400*day))
	s.take(t, late)
	s.now = ends.Add(360 * day)
	want(2, 3, registryv1.LicenceState_LICENCE_STATE_EXPIRING)
}

// Row C49: whoever writes to the database has forged nothing: each service verifies by itself, and uses the last one that is good.
func TestForgedRowsAreWorthNothing(t *testing.T) {
	s := newSet(t)
	expired := licencetest.Whole(s.tenant, 1)
	expired.ValidFrom, expired.ValidUntil, expired.GraceDays = timestamppb.New(s.now.AddDate(-2, 0, 0)), timestamppb.New(s.now.AddDate(-1, 0, 0)), 0
	s.take(t, expired)
	endless := licencetest.Whole(s.tenant, 2)
	forged := licencetest.Sign(t, endless)
	licencetest.InstallFile(t, s.Database.Database.URL, 2, []byte(strings.Replace(string(forged), `"sig":"`, `"sig":"AAAA`, 1)))
	licencetest.InstallFile(t, s.Database.Database.URL, 3, licencetest.Sign(t, licencetest.Whole(id.NewTenant(), 3)))
	licencetest.InstallFile(t, s.Database.Database.URL, 4, []byte("x"))
	for _, role := range []string{"role_iam", "role_iam_tenant", "role_integrations", "role_discovery"} {
		if err := s.allows(t, role); !errors.Is(err, licence.ErrExpired) {
			t.Errorf("%s: %v", role, err)
		}
	}
	if st := s.look(t); st.Worth.Licence.GetSerial() != 1 {
		t.Errorf("it holds %v", st.Worth.Licence)
	}
	// What the services read they can't write.
	for _, role := range []string{"role_iam", "role_iam_tenant", "role_integrations", "role_integrations_tenant", "role_discovery", "role_discovery_tenant", "role_audit"} {
		conn := s.As(t, role)
		for _, sql := range []string{"UPDATE audit.licences SET serial = 9", "DELETE FROM audit.licences"} {
			if _, err := conn.Exec(t.Context(), sql); err == nil {
				t.Errorf("%s may %s", role, sql)
			}
		}
		if role == "role_audit" {
			continue
		}
		for _, sql := range []string{"INSERT INTO audit.licences (serial, file, installed_at) VALUES (9, 'x', now())", "UPDATE audit.licence_watch SET seen_at = to_timestamp(0)"} {
			if _, err := conn.Exec(t.Context(), sql); err == nil {
				t.Errorf("%s may %s", role, sql)
			}
		}
	}
	t.Attr("row", "C49 3")
}

// Row C49, the clock: a licence that ended stays ended however the clock is turned back, in a process that is started again, too; it is
// on the record, once for each turn; and the next licence, which somebody signed who has a clock, sets things right.
func TestClockTurnedBackGainsNothing(t *testing.T) {
	s := newSet(t)
	l := licencetest.Whole(s.tenant, 1)
	l.ValidUntil, l.GraceDays = timestamppb.New(s.now.Add(time.Hour)), 0
	s.take(t, l)
	s.wantTold(t, "licence.installed")
	began := s.now
	s.now = began.Add(30 * time.Minute)
	if s.look(t); s.allows(t, "role_discovery") != nil {
		t.Fatal("it does not hold yet")
	}
	s.now = began.Add(2 * time.Hour)
	if st := s.look(t); st.Worth.State != registryv1.LicenceState_LICENCE_STATE_EXPIRED {
		t.Fatalf("two hours later it is %v", st.Worth.State)
	}
	s.wantTold(t, "licence.state_changed")
	for _, back := range []time.Duration{2 * time.Hour, 24 * time.Hour, 10 * 365 * 24 * time.Hour} {
		s.now = began.Add(2 * time.Hour).Add(-back)
		s.restart(t)
		for range 2 {
			st := s.look(t)
			if st.Worth.State != registryv1.LicenceState_LICENCE_STATE_EXPIRED || st.Behind.IsZero() || !st.Report().GetClockBehind() {
				t.Errorf("%s back it is %v, behind %v", back, st.Worth.State, st.Behind)
			}
		}
		if err := s.allows(t, "role_iam_tenant"); !errors.Is(err, licence.ErrExpired) {
			t.Errorf("%s back: %v", back, err)
		}
		s.wantTold(t, "licence.clock_turned_back")
		s.now = began.Add(2 * time.Hour)
		s.look(t)
		s.wantTold(t, "licence.clock_in_order")
	}
	// A clock that is a little behind is an ordinary one.
	s.now = began.Add(2*time.Hour - 4*time.Minute)
	if st := s.look(t); !st.Behind.IsZero() || st.Worth.State != registryv1.LicenceState_LICENCE_STATE_EXPIRED {
		t.Errorf("four minutes back it is %v, behind %v", st.Worth.State, st.Behind)
	}
	s.wantTold(t)
	// The control plane's clock and the log's newest event are looked at as well.
	s.keeper.Heard(s.now.Add(time.Hour))
	if st := s.look(t); st.Behind.IsZero() {
		t.Error("the registry's time was not looked at")
	}
	s.told(t)
	next := licencetest.Whole(s.tenant, 2)
	next.IssuedAt = timestamppb.New(s.now)
	s.take(t, next)
	if st := s.look(t); !st.Behind.IsZero() || st.Worth.State != registryv1.LicenceState_LICENCE_STATE_VALID {
		t.Errorf("after the next licence it is %v, behind %v", st.Worth.State, st.Behind)
	}
	t.Attr("row", "C49 8")
}

// What a crash lost of the newest time, the newest event in the log still tells.
func TestNewestEventTellsTheTimeAfterACrash(t *testing.T) {
	s := newSet(t)
	s.take(t, licencetest.Whole(s.tenant, 1))
	s.look(t)
	s.Unlock(t)
	if _, err := s.As(t, "owner").Exec(t.Context(), `INSERT INTO audit.entries (idx, leaf, leaf_hash, action, actor, target, outcome, recorded_at)
		VALUES (0, 'x', decode(repeat('00', 32), 'hex'), 'a', 'b', 'c', 1, now() + interval '3 hours')`); err != nil {
		t.Fatal(err)
	}
	s.restart(t)
	if st := s.look(t); st.Behind.IsZero() {
		t.Error("the newest event was not looked at")
	}
}

func TestUsageIsOnTheRecordBeforeItIsSent(t *testing.T) {
	s := newSet(t)
	signer := s.signer(t)
	failing := errors.New("away")
	u := &licensing.Usage{Keeper: s.keeper, Plane: "dev", Tenant: s.tenant, Signer: signer, Every: time.Hour,
		Counts: map[string]licensing.Count{"iam": func(context.Context, time.Time) (map[string]int64, error) {
			return map[string]int64{"seats": 3}, failing
		}}}
	due := func() *registryv1.UsageReport {
		t.Helper()
		r, err := u.Due(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	failing = nil
	if due() != nil {
		t.Error("without a licence something is reported")
	}
	off := licencetest.Whole(s.tenant, 1)
	off.UsageReports = registryv1.UsageReports_USAGE_REPORTS_OFF
	s.take(t, off)
	if n, err := u.Next(t.Context()); err != nil || n.Off == "" || due() != nil {
		t.Errorf("the licence says that nothing is reported, and next is %+v: %v", n, err)
	}
	s.take(t, licencetest.Whole(s.tenant, 2))
	s.told(t)
	shown, err := u.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sent := due()
	text, err := shown.Report.Text()
	if err != nil || !strings.HasPrefix(sent.GetNote(), text+"\n") {
		t.Errorf("shown was\n%s\nand sent\n%s", text, sent.GetNote())
	}
	s.wantTold(t, "licence.usage_reported")
	// Until it was taken, the same is sent again, and is recorded no second time.
	if again := due(); again.GetNote() != sent.GetNote() {
		t.Error("what was not taken is made anew")
	}
	u.Kept()
	if due() != nil {
		t.Error("it is reported again at once")
	}
	s.wantTold(t)
	s.now = s.now.Add(time.Hour)
	if r := due(); r == nil {
		t.Error("an hour later nothing is reported")
	} else if got, err := usage.Open("dev", s.tenant, r.GetNote(), signer.Verifier()); err != nil || got.Counts["seats"] != 3 {
		t.Errorf("it reports %+v: %v", got, err)
	}
}

// A clock that ran ahead and was put right keeps no later report: the next one is due at once, of the hour that has passed, and then one an hour.
func TestUseIsReportedAgainOnceAClockThatRanAheadIsRight(t *testing.T) {
	s := newSet(t)
	signer := s.signer(t)
	u := &licensing.Usage{Keeper: s.keeper, Plane: "dev", Tenant: s.tenant, Signer: signer, Every: time.Hour}
	reported := func() (r usage.Report, due bool) {
		t.Helper()
		sent, err := u.Due(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if sent == nil {
			return r, false
		}
		if r, err = usage.Open("dev", s.tenant, sent.GetNote(), signer.Verifier()); err != nil {
			t.Fatal(err)
		}
		u.Kept()
		return r, true
	}
	s.take(t, licencetest.Whole(s.tenant, 1))
	right := s.now
	s.now = right.AddDate(1, 0, 0)
	if _, due := reported(); !due {
		t.Fatal("nothing is reported")
	}
	// Clocks are put right by minutes, which changes nothing.
	s.now = s.now.Add(-3 * time.Minute)
	if r, due := reported(); due {
		t.Errorf("minutes earlier it reports again: %+v", r)
	}
	s.now = right
	if n, err := u.Next(t.Context()); err != nil || !n.At.Equal(right) || !n.Report.Since.Equal(right.Add(-time.Hour)) || !n.Report.Until.Equal(right) {
		t.Errorf("next is %+v, %v", n, err)
	}
	if r, due := reported(); !due || !r.Until.Equal(right.Truncate(time.Second)) {
		t.Errorf("with the clock put right it reports %+v (due: %v)", r, due)
	}
	if r, due := reported(); due {
		t.Errorf("it is reported again at once: %+v", r)
	}
	s.now = right.Add(time.Hour)
	if r, due := reported(); !due || !r.Since.Equal(right.Truncate(time.Second)) {
		t.Errorf("an hour later it reports %+v (due: %v)", r, due)
	}
}

// A report that is on the record and that the control plane did not take before `audit` ended is sent by the next process, without being recorded
// once more; one that it has by then is sent once more, which changes nothing there.
func TestReportThatIsOnTheRecordIsSentAfterARestart(t *testing.T) {
	s := newSet(t)
	ours := s.signer(t)
	started := func(by *tlog.Signer) *licensing.Usage {
		return &licensing.Usage{Keeper: s.keeper, Plane: "dev", Tenant: s.tenant, Signer: by, Every: time.Hour}
	}
	due := func(u *licensing.Usage) string {
		t.Helper()
		r, err := u.Due(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r.GetNote()
	}
	s.take(t, licencetest.Whole(s.tenant, 1))
	s.told(t)
	made := due(started(ours))
	s.wantTold(t, "licence.usage_reported")
	if made == "" {
		t.Fatal("nothing is reported")
	}

	s.now = s.now.Add(time.Minute)
	again := started(ours)
	if sent := due(again); sent != made {
		t.Errorf("after a restart it sends\n%s\nand not\n%s", sent, made)
	}
	s.wantTold(t)
	again.Kept()
	if sent := due(again); sent != "" {
		t.Errorf("once it was taken it is sent again:\n%s", sent)
	}
	if sent := due(started(s.signer(t))); sent != "" {
		t.Errorf("what another key signed is sent:\n%s", sent)
	}
	s.now = s.now.Add(2 * time.Hour)
	if sent := due(again); sent == "" || sent == made {
		t.Errorf("two hours later it sends\n%s", sent)
	}
	s.told(t)

	off := licencetest.Whole(s.tenant, 2)
	off.UsageReports = registryv1.UsageReports_USAGE_REPORTS_OFF
	s.take(t, off)
	if sent := due(started(ours)); sent != "" {
		t.Errorf("the licence says that nothing is reported, and it sends\n%s", sent)
	}
}
