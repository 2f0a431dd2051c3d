package command

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/plane"
)

const releaseHelp = `Build, sign and register releases. A release is a version, the digest of every artefact, the migrations that it brings, the oldest version to
upgrade from, and a signature (DSSE, Ed25519). A version names one release for ever; sets run what a digest says and never what a tag says.

A release is made by a blueprint, whose text is kept where it is registered: its sets are made and started by that one, whatever later fleets have.

Migrations are held against the release before, by running both in a PostgreSQL of their own: what takes something away is refused, unless
the migration itself says why it may: -- accepted RULE: why`

func (a *app) releaseCommand() *cobra.Command {
	var key string
	newKey := &cobra.Command{Use: "key --out FILE", Short: "Make a key that signs this plane's releases", Args: exactly(), RunE: func(*cobra.Command, []string) error {
		p, err := a.plane()
		if err != nil {
			return err
		}
		public, err := p.NewReleaseKey(key)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.out, "%s\n", public)
		return err
	}}
	newKey.Flags().StringVar(&key, "out", "", "file for the private half; the public one is printed, for A3_RELEASE_KEYS")
	_ = newKey.MarkFlagRequired("out")
	list := &cobra.Command{Use: "list", Short: "List releases, the newest first", Args: exactly(), RunE: func(c *cobra.Command, _ []string) error {
		p, err := a.plane()
		if err != nil {
			return err
		}
		all, err := p.Releases(c.Context())
		if err != nil {
			return err
		}
		return a.releases(all)
	}}
	show := &cobra.Command{Use: "show NAME", Short: "Show a release, by version or name", Args: exactly("NAME"), RunE: func(c *cobra.Command, args []string) error {
		p, err := a.plane()
		if err != nil {
			return err
		}
		r, err := p.Release(c.Context(), args[0])
		if err != nil {
			return err
		}
		return a.release(r)
	}}
	c := group("release", "What sets run: built, signed, registered", newKey, a.releaseBuild(), a.releaseRegister(), a.releaseBlueprint(), list, show)
	c.Long = releaseHelp
	return c
}

func buildFlags(c *cobra.Command, o *plane.BuildOptions, artefacts *[]string) {
	c.Flags().StringVar(&o.Version, "version", "", "version, as 1.4.0")
	c.Flags().StringArrayVar(artefacts, "artefact", nil, "an artefact and its file, as accessos=bin/accessos")
	c.Flags().StringVar(&o.Minimum, "minimum", "", "oldest version that a set may be upgraded from")
	c.Flags().StringVar(&o.Previous, "previous", "", "release that migrations are held against; the newest one before it when empty")
	c.Flags().StringVar(&o.Blueprint, "blueprint", "", "file with the blueprint that the release is made by; fleet's own when empty")
	c.Flags().StringVar(&o.Key, "key", "", "file with the key that signs; the plane's own when empty")
}

func (a *app) releaseBuild() *cobra.Command {
	var o plane.BuildOptions
	var artefacts []string
	var out string
	c := &cobra.Command{Use: "build --version V --artefact NAME=FILE --out FILE", Short: "Make a signed release, to be registered elsewhere", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			envelope, err := a.build(c, p, o, artefacts)
			if err != nil {
				return err
			}
			const mode = 0o644
			return os.WriteFile(out, envelope, mode) //nolint:gosec // a release holds no secret
		}}
	buildFlags(c, &o, &artefacts)
	c.Flags().StringVar(&out, "out", "", "file for the signed release")
	_ = errors.Join(c.MarkFlagRequired("version"), c.MarkFlagRequired("artefact"), c.MarkFlagRequired("out"))
	return c
}

func (a *app) releaseRegister() *cobra.Command {
	var o plane.BuildOptions
	var artefacts []string
	var file string
	c := &cobra.Command{Use: "register (--version V | --release FILE) --artefact NAME=FILE", Short: "Have a release kept, so that tenants can be brought to it", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			if (file == "") == (o.Version == "") {
				return usageError{errors.New("say one of --version, to build a release here, and --release, for one that was built")}
			}
			files, err := named(artefacts)
			if err != nil {
				return err
			}
			var envelope []byte
			if file != "" {
				envelope, err = os.ReadFile(file)
			} else {
				envelope, err = a.build(c, p, o, artefacts)
			}
			if err != nil {
				return err
			}
			r, err := p.RegisterRelease(c.Context(), envelope, files, o.Blueprint)
			if err != nil {
				return err
			}
			return a.releases([]*registryv1.Release{r})
		}}
	buildFlags(c, &o, &artefacts)
	c.Flags().StringVar(&file, "release", "", "a signed release, of fleet release build")
	_ = c.MarkFlagRequired("artefact")
	return c
}

func (a *app) releaseBlueprint() *cobra.Command {
	return &cobra.Command{Use: "blueprint FILE", Short: "Keep the blueprint of releases that were registered without one", Args: exactly("FILE"), RunE: func(c *cobra.Command, args []string) error {
		p, err := a.plane()
		if err != nil {
			return err
		}
		versions, err := p.KeepBlueprint(c.Context(), args[0])
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.out, "sets of release %s are made and started by it\n", strings.Join(versions, ", "))
		return err
	}}
}

func (a *app) build(c *cobra.Command, p *plane.Plane, o plane.BuildOptions, artefacts []string) ([]byte, error) {
	var err error
	if o.Artefacts, err = named(artefacts); err != nil {
		return nil, err
	}
	envelope, accepted, err := p.BuildRelease(c.Context(), o)
	for _, f := range accepted {
		_, _ = fmt.Fprintln(a.errOut, "·", f)
	}
	return envelope, err
}

// named reads NAME=FILE.
func named(artefacts []string) (map[string]string, error) {
	out := map[string]string{}
	for _, text := range artefacts {
		name, file, ok := strings.Cut(text, "=")
		if !ok || name == "" || file == "" || out[name] != "" {
			return nil, usageError{fmt.Errorf("--artefact is %q: it is a name and a file, as accessos=bin/accessos, each name once", text)}
		}
		out[name] = file
	}
	return out, nil
}

func (a *app) releases(all []*registryv1.Release) error {
	if a.format == "json" {
		return a.json(&registryv1.ListReleasesResponse{Releases: all})
	}
	var rows [][]string
	for _, r := range all {
		m := r.GetManifest()
		rows = append(rows, []string{m.GetVersion(), r.GetName(), fmt.Sprint(len(m.GetMigrations())), orDash(m.GetMinimumVersion()), orDash(m.GetOldestCompatible()),
			r.GetActor(), r.GetRegisteredAt().AsTime().Format(time.RFC3339)})
	}
	return a.table([]string{"VERSION", "NAME", "MIGRATIONS", "FROM", "BACK TO", "BY", "REGISTERED"}, rows)
}

func orDash(text string) string {
	if text == "" {
		return "any"
	}
	return text
}

func (a *app) release(r *registryv1.Release) error {
	if a.format == "json" {
		return a.json(r)
	}
	if err := a.releases([]*registryv1.Release{r}); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(a.out, "\nsigned by %s\nblueprint %s %s\n\n", strings.Join(r.GetKeyIds(), ", "), r.GetManifest().GetBlueprint(), r.GetManifest().GetBlueprintDigest())
	var rows [][]string
	for _, x := range r.GetManifest().GetArtefacts() {
		rows = append(rows, []string{x.GetName(), x.GetDigest(), fmt.Sprint(x.GetSize()), x.GetMediaType()})
	}
	if err := a.table([]string{"ARTEFACT", "DIGEST", "BYTES", "TYPE"}, rows); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(a.out)
	rows = nil
	for _, x := range r.GetManifest().GetMigrations() {
		rows = append(rows, []string{x.GetName(), x.GetDigest(), x.GetAccepted()})
	}
	return a.table([]string{"MIGRATION", "DIGEST", "ACCEPTED"}, rows)
}
