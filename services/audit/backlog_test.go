package audit_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/emptypb"

	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/pgtest"
	"a3os.app/libs/record"
	"a3os.app/libs/scope"
	"a3os.app/libs/scope/scopetest"

	"a3os.app/services/audit/internal/audittest"
	"a3os.app/services/audit/internal/seal"
)

// producer does deeds as a service does them.
type producer struct {
	t   *testing.T
	d   *audittest.Database
	db  *pg.DB
	ctx context.Context //nolint:containedctx // the scope of one caller, for the length of a test
	// done are the deeds that were acknowledged.
	done int
}

func newProducer(t *testing.T, settings string) *producer {
	t.Helper()
	d := audittest.New(t)
	d.Exec(t, "CREATE TABLE public.deeds (id uuid); GRANT INSERT, SELECT ON public.deeds TO PUBLIC; GRANT USAGE ON SCHEMA public TO PUBLIC; UPDATE audit.settings SET "+settings)
	db, err := pg.Open(t.Context(), pg.Config{URL: d.URL["role_iam"], Service: "iam", Owner: bindingtest.Somebody(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	ctx := scopetest.With(t.Context(), scope.Scope{Plane: "dev", Tenant: id.NewTenant(), Workspace: id.NewWorkspace(), Principal: "usr_x"})
	return &producer{t: t, d: d, db: db, ctx: ctx}
}

// deed does one, with a key of its own, and says how it ended.
func (p *producer) deed() error {
	p.t.Helper()
	ctx := scopetest.WithKey(p.ctx, "/a3os.iam.v1.UserWriteService/InviteUser", id.NewUser().String())
	_, err := pg.Deed(ctx, p.db.Workspace, &emptypb.Empty{}, func(ctx context.Context, tx pgx.Tx) (*emptypb.Empty, error) {
		if _, err := tx.Exec(ctx, "INSERT INTO public.deeds VALUES ($1)", id.NewRun()); err != nil {
			return nil, err
		}
		return &emptypb.Empty{}, record.Append(ctx, tx, record.Event{Action: "iam.user.invited", Target: "usr_y"})
	})
	if err == nil {
		p.done++
	}
	return err
}

// untilRefused does deeds until one is refused, which must say that it is for now.
func (p *producer) untilRefused() {
	p.t.Helper()
	began := time.Now()
	for {
		err := p.deed()
		if err == nil && time.Since(began) < time.Minute {
			continue
		}
		if !errors.Is(err, fault.ErrUnchanged) || fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "nothing was changed") {
			p.t.Fatalf("after %s and %d deeds: %v, want unavailable", time.Since(began), p.done, err)
		}
		break
	}
	for range 3 {
		if err := p.deed(); fault.KindOf(err) != fault.Unavailable {
			p.t.Errorf("once more: %v", err)
		}
	}
	p.nothingHalfDone()
}

// nothingHalfDone holds what was done against what is on the record and what was acknowledged, and sees that reads go on.
func (p *producer) nothingHalfDone() {
	p.t.Helper()
	var deeds int
	err := p.db.ReadWorkspace(p.ctx, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, "SELECT count(*) FROM public.deeds").Scan(&deeds)
	})
	if err != nil {
		p.t.Errorf("reads don't go on: %v", err)
	}
	var recorded, keys int
	err = p.d.Pool(p.t).QueryRow(p.t.Context(), "SELECT (SELECT count(*) FROM audit.inbox) + (SELECT count(*) FROM audit.entries), (SELECT count(*) FROM a3.idempotency_keys)").Scan(&recorded, &keys)
	if err != nil || deeds != p.done || recorded != p.done || keys != p.done {
		p.t.Errorf("%d deeds were acknowledged, %d happened, %d are on the record, %d keys are kept (%v)", p.done, deeds, recorded, keys, err)
	}
}

// Row A55: nobody seals. Past either bound deeds are refused whole and reads go on; when a sealer is back, so are deeds.
func TestDeedsAreRefusedWhileNobodySeals(t *testing.T) {
	for name, settings := range map[string]string{
		"rows":    "max_backlog_rows = 20",
		"seconds": "max_backlog_age = '1 second'",
	} {
		t.Run(name, func(t *testing.T) {
			p := newProducer(t, settings)
			signer := audittest.Signer(t)
			s := seal.New(p.d.DB(t), signer)
			if err := s.Round(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				p.untilRefused()
				if err := s.Round(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := p.deed(); err != nil {
					t.Errorf("after sealing: %v", err)
				}
				p.nothingHalfDone()
			}
			t.Attr("row", "A55 12")
		})
	}
}

// Row A55: the disk that the log is on is full. What waits is bounded, deeds are refused whole past it and reads go on; with space
// again everything that was acknowledged is sealed.
func TestDeedsAreRefusedWhileTheLogsDiskIsFull(t *testing.T) {
	server := pgtest.Server(t, 0)
	url, err := server.URL("postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(pgtest.EnvServer, url)
	small := filepath.Join(filepath.Dir(server.Dir()), "a3-small-"+id.NewRun().String())
	if err := os.Mkdir(small, 0o755); err != nil { //nolint:gosec // the server's user walks there
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(small) })
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", small).CombinedOutput(); err != nil {
		t.Skipf("a small disk can't be mounted here, so a full one is not tested: %v: %s", err, out)
	}
	t.Cleanup(func() { // lazily, for the server that has files there ends after this
		if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "umount", "-l", small).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	if out, err := exec.CommandContext(t.Context(), "chown", server.User(), small).CombinedOutput(); err != nil {
		t.Fatalf("give the small disk to the server: %v: %s", err, out)
	}
	p := newProducer(t, "max_backlog_rows = 200")
	p.d.Exec(t, "CREATE TABLESPACE small LOCATION '"+small+"'")
	p.d.Exec(t, "ALTER TABLE audit.entries SET TABLESPACE small")
	signer := audittest.Signer(t)
	s := seal.New(p.d.DB(t), signer)
	if err := s.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(small, "full")
	for room := 1 << 20; room > 0; { // until not a byte is left
		f, err := os.OpenFile(full, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		n, err := f.Write(make([]byte, room))
		if err = errors.Join(err, f.Close()); n == 0 || err != nil {
			room /= 2
		}
	}
	refused := 0
	for range 3 {
		p.untilRefused()
		refused += 4
		if err := s.Round(t.Context()); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("sealing on a full disk: %v", err)
		}
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	if err := s.Round(t.Context()); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	if err := p.deed(); err != nil {
		t.Errorf("with space again: %v", err)
	}
	p.nothingHalfDone()
	if err := s.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Attr("row", "A55 12")
}
