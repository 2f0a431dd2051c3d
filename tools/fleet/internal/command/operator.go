package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"a3os.app/libs/fault"
	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/operator"
	"a3os.app/tools/fleet/internal/plane"
	"a3os.app/tools/fleet/internal/settings"
)

const operatorHelp = `An operator is a person (or a machine) that operates the plane: what they do is on every record under their name. The key is the plane's
machine's, for who works there with A3_OPERATOR=NAME, or their own:

  fleet operator request ben                                   on a machine of theirs: makes the key, prints what to hand over
  fleet operator add ben --request FILE --reason TEXT          on the plane's machine: writes what to hand back
  fleet operator accept FILE                                   on theirs, which works with A3_OPERATOR_DIR from then on

On a plane prod an approval counts that was given with a key of one's own, and by no other. There, once somebody has such a key, whoever is
added waits for another operator's word: fleet operator confirm.`

// days is how long a certificate over a key of one's own lasts: nothing renews it but to be asked for again.
const (
	daysByDefault = 30
	mostDays      = 90
	day           = 24 * time.Hour
)

func (a *app) operatorCommand() *cobra.Command {
	g := group("operator", "Who operates the plane", a.operatorRequest(), a.operatorAdd(), a.operatorAccept(), a.operatorConfirm(), a.operatorRemove(), a.operatorList())
	g.Long = operatorHelp
	return g
}

// operatorDir is the directory that a command works on: the one it names, that of A3_OPERATOR_DIR, or the operator's own of their user.
func (a *app) operatorDir(dir, name string) (operator.Dir, error) {
	if dir != "" {
		abs, err := filepath.Abs(dir)
		return operator.Dir(abs), err
	}
	root, err := settings.Root()
	if err != nil {
		return "", err
	}
	s, err := settings.Load(a.environ, root)
	if err != nil {
		return "", usageError{err}
	}
	if s.OperatorDir != "" {
		return operator.Dir(s.OperatorDir), nil
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return "", usageError{fmt.Errorf("this user has no directory for settings, so name one with --dir: %w", err)}
	}
	return operator.Dir(filepath.Join(config, "a3", workload.OperatorPrefix+name)), nil
}

func (a *app) operatorRequest() *cobra.Command {
	var dir string
	c := &cobra.Command{Use: "request NAME", Short: "Make a key of one's own, and ask for a certificate over it", Args: exactly("NAME"),
		Long: `request makes a key in a directory that nobody else can look into, and prints a request that holds no secret: hand it to who works on the
plane's machine, for fleet operator add NAME --request FILE --reason TEXT, in a way that leaves them sure that it is yours, and tell who is to confirm you the key's fingerprint. It needs no plane and
no network, and can be repeated: the key stays, and the same request is printed.`,
		Example: "  fleet operator request ben --dir ~/a3-operator > ben-request.pem",
		RunE: func(_ *cobra.Command, args []string) error {
			if !settings.OperatorName.MatchString(args[0]) {
				return usageError{fmt.Errorf("%q can't be an operator's name: 1 to 23 lower-case letters, digits and hyphens, a letter or a digit first and last", args[0])}
			}
			d, err := a.operatorDir(dir, args[0])
			if err != nil {
				return err
			}
			text, made, err := d.Request(args[0])
			if err != nil {
				return err
			}
			r, err := operator.ParseRequest(text)
			if err != nil {
				return err
			}
			said := "the key in %s is there already; its fingerprint is %s\n"
			if made {
				said = "made a key in %s, which is to leave it never; its fingerprint is %s\n"
			}
			if _, err := fmt.Fprintf(a.errOut, said, d, r.Fingerprint); err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(map[string]string{"name": r.Name, "dir": string(d), "key_fingerprint": r.Fingerprint, "request": string(text)})
			}
			_, err = a.raw.Write(text)
			return err
		}}
	c.Flags().StringVar(&dir, "dir", "", "directory of the key; that of A3_OPERATOR_DIR when empty, else operator-NAME of this user's settings")
	return c
}

func (a *app) operatorAdd() *cobra.Command {
	var reason, request, out string
	var days int
	c := &cobra.Command{Use: "add NAME --reason TEXT", Short: "Put an operator on record, and make what they work with", Args: exactly("NAME"),
		Long: `add puts an operator on the registry's record. With --request it issues a certificate over the key that the request proves to be its sender's,
and writes a file to hand back, which holds no secret. Without, it makes key and certificate on the plane's machine, for A3_OPERATOR=NAME: whoever
owns the plane there can work in that name, so nobody approves with such a key on a plane prod. It can be repeated: with the same request it
issues another certificate, before the one that there is ends.`,
		Example: "  fleet operator add ben --request ben-request.pem --reason \"on call from May on, met in person\"\n  fleet operator add ann --reason \"works on the plane's machine\"",
		RunE: func(c *cobra.Command, args []string) error {
			if days < 1 || days > mostDays {
				return usageError{fmt.Errorf("--days is %d: a certificate is for 1 to %d days", days, mostDays)}
			}
			if request == "" && (out != "" || c.Flags().Changed("days")) {
				return usageError{errors.New("--out and --days are of a certificate over a key of the operator's own: they need --request")}
			}
			r, err := readRequest(request)
			if err != nil {
				return err
			}
			if out == "" {
				out = workload.OperatorPrefix + args[0] + ".json"
			}
			p, err := a.plane()
			if err != nil {
				return err
			}
			if r != nil {
				if err := writable(out, args[0]); err != nil {
					return err
				}
			}
			added, err := p.AddOperator(c.Context(), args[0], reason, r, time.Duration(days)*day)
			if err != nil {
				return err
			}
			return a.operatorAdded(added, r, out)
		}}
	f := c.Flags()
	f.StringVar(&reason, "reason", "", "why, 10 to 500 characters, on the record")
	f.StringVar(&request, "request", "", "file with what fleet operator request printed on the operator's machine")
	f.StringVar(&out, "out", "", "file that is handed back to the operator; operator-NAME.json when empty")
	f.IntVar(&days, "days", daysByDefault, fmt.Sprintf("how long the certificate over the operator's own key lasts, %d at most", mostDays))
	_ = c.MarkFlagRequired("reason")
	return c
}

// readRequest reads the request that a file holds; nil where none is named.
func readRequest(file string) (*operator.Request, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // none is an answer
	}
	text, err := operator.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	r, err := operator.ParseRequest(text)
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "%s: %v", file, err)
	}
	return &r, nil
}

// writable refuses to write over anything but an earlier file of the same operator.
func writable(file, name string) error {
	text, err := operator.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if b, err := operator.ParseBundle(text); err != nil || b.Name != name {
		return fault.New(fault.FailedPrecondition, "%s is there and is something else: name another file with --out", file)
	}
	return nil
}

func (a *app) operatorAdded(added *plane.AddedOperator, r *operator.Request, out string) error {
	name := added.Record.GetName()
	if r != nil {
		text, err := json.MarshalIndent(added.Bundle, "", "  ")
		if err != nil {
			return err
		}
		if err := renameio.WriteFile(out, append(text, '\n'), 0o644); err != nil { //nolint:gosec // G306: it is to be handed over, and holds no secret
			return fmt.Errorf("write what is handed back: %w", err)
		}
	}
	if a.format == "json" {
		return a.json(added.Record)
	}
	var err error
	switch {
	case r != nil:
		_, err = fmt.Fprintf(a.out, "%s is on record, with a key of their own, fingerprint %s; hand %s back to them: fleet operator accept %s\n", name, r.Fingerprint, out, filepath.Base(out))
	case !added.Added && !added.Made:
		_, err = fmt.Fprintf(a.out, "%s is there already: nothing changed\n", name)
	default:
		_, err = fmt.Fprintf(a.out, "%s is an operator: work with A3_OPERATOR=%s; the key is in %s\n", name, name, added.Dir)
	}
	if err != nil || plane.StateOf(added.Record) != plane.OperatorPending {
		return err
	}
	key := ""
	if r != nil {
		key = " --key " + r.Fingerprint
	}
	_, err = fmt.Fprintf(a.out, "They wait for another operator's word: fleet operator confirm %s%s --reason TEXT\n", name, key)
	return err
}

func (a *app) operatorAccept() *cobra.Command {
	var dir, registry string
	c := &cobra.Command{Use: "accept FILE", Short: "Take the certificate over one's own key, for A3_OPERATOR_DIR", Args: exactly("FILE"),
		Long: `accept takes what fleet operator add wrote: the certificate must be over the directory's own key and of the plane that was accepted first. From
then on A3_OPERATOR_DIR has fleet work in the operator's name, wherever the plane's registry can be reached: plans are listed, shown and
approved, operators confirmed and removed, rollouts steered. What changes a tenant's set takes the plane's machine.`,
		Example: "  fleet operator accept operator-ben.json --dir ~/a3-operator\n  fleet operator accept operator-ben.json --dir ~/a3-operator --registry 127.0.0.1:9443   # an end of a tunnel",
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := operator.ReadFile(args[0])
			if err != nil {
				return err
			}
			b, err := operator.ParseBundle(text)
			if err != nil {
				return fault.New(fault.InvalidArgument, "%s: %v", args[0], err)
			}
			if !settings.OperatorName.MatchString(b.Name) {
				return fault.New(fault.InvalidArgument, "%s names no operator", args[0])
			}
			d, err := a.operatorDir(dir, b.Name)
			if err != nil {
				return err
			}
			o, err := d.Accept(b, registry)
			if err != nil {
				return fault.New(fault.FailedPrecondition, "%s is not taken: %v", args[0], err)
			}
			if a.format == "json" {
				return a.json(map[string]string{"name": o.Name, "plane": o.Plane, "dir": string(d), "registry": o.Registry, "key_fingerprint": o.Fingerprint, "certificate_until": o.Source.NotAfter().UTC().Format(time.RFC3339)})
			}
			_, err = fmt.Fprintf(a.out, "%s of plane %s until %s: work with A3_OPERATOR_DIR=%s\n", o.Name, o.Plane, o.Source.NotAfter().UTC().Format(time.RFC3339), d)
			return err
		}}
	c.Flags().StringVar(&dir, "dir", "", "directory of the key; that of A3_OPERATOR_DIR when empty, else operator-NAME of this user's settings")
	c.Flags().StringVar(&registry, "registry", "", "where the plane's registry is reached from here, HOST:PORT; what FILE says when empty")
	return c
}

func (a *app) operatorConfirm() *cobra.Command {
	var reason, key string
	c := &cobra.Command{Use: "confirm NAME --reason TEXT", Short: "Give another operator's word for one who was added", Args: exactly("NAME"),
		Long: `confirm is what an operator waits for who was added to a plane prod: the word of somebody who neither added them nor is they themselves, one of the
two with a key of their own. Where theirs is their own, ask them for its fingerprint yourself: who added them could have put another on record.`,
		Example: `  fleet operator confirm carol --key 5f1d2c9a77e0b3d4 --reason "carol read it to me on the telephone"`,
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			o, err := p.ConfirmOperator(c.Context(), args[0], key, reason)
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(o)
			}
			_, err = fmt.Fprintf(a.out, "%s is an operator since %s\n", o.GetName(), o.GetConfirmedAt().AsTime().Format(time.RFC3339))
			return err
		}}
	c.Flags().StringVar(&reason, "reason", "", "why, 10 to 500 characters, on the record")
	c.Flags().StringVar(&key, "key", "", "fingerprint of their key as they say it, or its first 16 digits; needed where it is their own")
	_ = c.MarkFlagRequired("reason")
	return c
}

func (a *app) operatorRemove() *cobra.Command {
	var reason string
	c := &cobra.Command{Use: "remove NAME --reason TEXT", Short: "End what an operator may, at once, and what they approved with it", Args: exactly("NAME"),
		Long: `remove ends what an operator may: their next call is refused, what they watch ends within seconds, and no plan is begun by an approval of
theirs. Their key is removed from this machine where it is here. The name can be added again; what was approved before stays void.`,
		Example: `  fleet operator remove ben --reason "left the company, case 4715"`,
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			o, err := p.RemoveOperator(c.Context(), args[0], reason)
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(o)
			}
			_, err = fmt.Fprintf(a.out, "%s is no operator since %s\n", o.GetName(), o.GetRemovedAt().AsTime().Format(time.RFC3339))
			return err
		}}
	c.Flags().StringVar(&reason, "reason", "", "why, 10 to 500 characters, on the record")
	_ = c.MarkFlagRequired("reason")
	return c
}

// listedOperator is an operator as -o json has them.
type listedOperator struct {
	Name             string              `json:"name"`
	Key              string              `json:"key"`
	KeyFingerprint   string              `json:"key_fingerprint,omitempty"`
	State            plane.OperatorState `json:"state"`
	AddedBy          string              `json:"added_by,omitempty"`
	AddedAt          *time.Time          `json:"added_at,omitempty"`
	Reason           string              `json:"reason,omitempty"`
	ConfirmedBy      string              `json:"confirmed_by,omitempty"`
	RemovedBy        string              `json:"removed_by,omitempty"`
	RemovedAt        *time.Time          `json:"removed_at,omitempty"`
	RemovalReason    string              `json:"removal_reason,omitempty"`
	CertificateUntil *time.Time          `json:"certificate_until,omitempty"`
}

func listed(o plane.Operator) listedOperator {
	l := listedOperator{Key: "plane", State: plane.OperatorActive}
	if !o.Until.IsZero() {
		l.CertificateUntil = new(o.Until.UTC())
	}
	r := o.Record
	if r == nil {
		return l
	}
	l.Name, l.KeyFingerprint, l.State, l.AddedBy, l.Reason = r.GetName(), r.GetKeyFingerprint(), plane.StateOf(r), r.GetAddedBy(), r.GetReason()
	l.ConfirmedBy, l.RemovedBy, l.RemovalReason, l.AddedAt = r.GetConfirmedBy(), r.GetRemovedBy(), r.GetRemovalReason(), new(r.GetAddedAt().AsTime())
	if r.GetOwnKey() {
		l.Key = "own"
	}
	if r.GetRemovedAt() != nil {
		l.RemovedAt = new(r.GetRemovedAt().AsTime())
	}
	return l
}

func (a *app) operatorList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List who operates the plane, and who did", Args: exactly(),
		Long: `list shows the registry's record, the newest first, after the plane's first operator, who has no name and stands on none. A key is the operator's
own, or the plane's machine's. Until when a certificate lasts is known of those that are on this machine.`,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			all, err := p.Operators(c.Context())
			if err != nil {
				return err
			}
			out := []listedOperator{}
			var rows [][]string
			for _, o := range all {
				l := listed(o)
				out = append(out, l)
				rows = append(rows, []string{orNone(l.Name), keyWord(l), string(l.State), orNone(l.AddedBy), orNone(at(l.AddedAt)), orNone(at(l.CertificateUntil))})
			}
			if a.format == "json" {
				return a.json(out)
			}
			return a.table([]string{"NAME", "KEY", "STATE", "ADDED BY", "ADDED", "CERTIFICATE UNTIL"}, rows)
		}}
}

// keyWord is whose a key is, with as much of its fingerprint as fleet operator confirm takes.
func keyWord(l listedOperator) string {
	const shown = 16
	if l.Key != "own" {
		return "the plane's"
	}
	return "own " + l.KeyFingerprint[:min(shown, len(l.KeyFingerprint))]
}

func at(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339)
}

func orNone(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
