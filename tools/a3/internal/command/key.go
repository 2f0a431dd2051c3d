package command

import (
	"context"

	"github.com/spf13/cobra"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	"a3os.app/tools/internal/show"
)

const signingKeyStatePrefix = "SIGNING_KEY_STATE_"

func (a *app) keyGroup() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the keys that access tokens are signed with (tenant admins and auditors)",
		Example: `  a3 key list`,
		Args:    exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error {
			t, err := a.open()
			if err != nil {
				return err
			}
			set, err := ask(ctx, across(t, iamv1connect.NewSigningKeyServiceClient).GetSigningKeySet, &iamv1.GetSigningKeySetRequest{})
			if err != nil {
				return err
			}
			return a.keySet(set)
		}),
	}
	var reason string
	var emergency bool
	rotate := &cobra.Command{
		Use: "rotate --reason TEXT", Short: "Sign access tokens with a new key from now on (tenant admins)",
		Long: `rotate has the next key sign. Tokens that live stay good and nobody notices: keys rotate by themselves every 30 days in this way. It is
refused while the next key was published too short a time ago for everyone to know it.

With --emergency, for a key that may be known to somebody else, every key is dropped and new ones are made: no service accepts a token
that was signed before, within 5 seconds. Sessions stay, so people and programs get new tokens without signing in. The reason, 10 to 500
characters, is kept in the audit log.`,
		Example: `  a3 key rotate --reason "Quarterly rotation, change 4711"
  a3 key rotate --emergency --reason "A backup of the key store was found outside, incident 12"`,
		Args: exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error {
			t, err := a.open()
			if err != nil {
				return err
			}
			set, err := create(ctx, a, across(t, iamv1connect.NewAdminSigningKeyServiceClient).RotateSigningKeys,
				&iamv1.RotateSigningKeysRequest{Reason: reason, Emergency: emergency})
			if err != nil {
				return err
			}
			return a.keySet(set)
		}),
	}
	rotate.Flags().StringVar(&reason, "reason", "", "why, 10 to 500 characters")
	rotate.Flags().BoolVar(&emergency, "emergency", false, "accept nothing any more that was signed before")
	_ = rotate.MarkFlagRequired("reason")
	return group("key", "Keys that access tokens are signed with", list, a.creates(rotate))
}

func (a *app) keySet(set *iamv1.SigningKeySet) error {
	return a.answer(set, func() error {
		table := show.NewTable("key", "state", "made", "signs since", "until")
		for _, k := range set.GetSigningKeys() {
			table.Row(k.GetKeyId(), word(k.GetState(), signingKeyStatePrefix), show.Time(k.GetCreatedAt()), show.Time(k.GetActivatedAt()), show.Time(k.GetRetiredAt()))
		}
		return a.list(table, "the tenant publishes no key")
	})
}
