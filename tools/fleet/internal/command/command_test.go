package command_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/command"
)

// Who types nonsense is told what is wrong with it and what to do next, and gets the exit code of a mistake of theirs, or of what is not there.
func TestNonsenseIsAnsweredWithTheNextStep(t *testing.T) {
	const mistake, notThere = 2, 4
	digits := strings.Repeat("0", 64)
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	environ := []string{"A3_HOME=" + nowhere, "A3_BACKUP_DIR="}
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"nonsense":                    {mistake, `there is no command "fleet nonsense": see fleet --help`},
		"tenant nonsense":             {mistake, "see fleet tenant --help"},
		"-o yaml status":              {mistake, "table or json"},
		"apply":                       {mistake, "it is called as: fleet apply HASH"},
		"plan upgrade --tenant acme":  {mistake, `"reason" not set: see fleet plan upgrade --help`},
		"restore --to acme":           {mistake, `"from", "reason" not set: see fleet restore --help`},
		"tenant create A_B":           {mistake, "lower-case letters, digits and hyphens"},
		"tenant create acme --tier x": {mistake, "dedicated or database"},
		"quota plan --tenants many":   {mistake, "see fleet quota plan --help"},
		"aws render":                  {mistake, "--account is missing: name the account where the stack is to be, twelve digits"},
		"aws render --account 123456789012 --region eu-central-1":                                                                  {mistake, "--domain is missing"},
		"aws render --account 123456789012 --region eu-central-1 --domain a3os.example --control --release 1.2.3@sha256:" + digits: {mistake, "--image is missing"},
		"aws render --stack-policy --first":                                                                                        {mistake, "--stack-policy is the same for each stack: name nothing with it"},
		"aws acceptance":                                                                                                           {mistake, `"region" not set: see fleet aws acceptance --help`},
		"aws acceptance --region eu-central-1":                                                                                     {mistake, "--administrator is missing: name the role that you are logged in as"},
		"aws acceptance --region r --administrator arn:":                                                                           {mistake, "--prefix-list is missing"},
		"licence issue acme --plan team --reason Order-4711 --days 99999999":                                                       {mistake, "--days is 99999999: it is from 1 to 3650"},
		"backup list":                                              {notThere, "A3_HOME names a plane's directory"},
		"plan suspend acme":                                        {mistake, "it is called as: fleet plan suspend (--tenant TENANT | --label NAME=VALUE | --wave RING)… --reason TEXT"},
		"approve 9f2c41d --reason Order-4711":                      {mistake, `"9f2c41d" is not a plan's hash, as sha256:9f2c41d07ab3, 12 to 64 digits of it: see fleet plan list`},
		"operation resume rol_01h455vb4pex5vsknk084sn02q":          {mistake, "is not an operation's id, which is opr_ and 26 characters: see fleet operation list"},
		"rollout pause opr_1 --reason Order-4711":                  {mistake, "is not a rollout's id, which is rol_ and 26 characters: see fleet rollout list"},
		"rollout retarget rol_01h455vb4pex5vsknk084sn02q sha256:9": {mistake, "is not a plan's hash"},
		"operator remove Ann --reason Order-4711":                  {mistake, "is not an operator's name"},
		"backup --all --keep 0":                                    {mistake, "--keep is 0: it is how many backups of a set are kept, 1 or more"},
		"apply sha256:9f2c41d07ab3 --max-parallel -1":              {mistake, "--max-parallel is -1: it is how many tenants are changed at once, 1 or more"},
		"plane renew": {notThere, "A3_HOME names a plane's directory"},
		"licence key": {notThere, "A3_HOME names a plane's directory"},
		"backup recovery-key " + nowhere + ".key":        {notThere, "A3_HOME names a plane's directory"},
		"backup accept-directory " + nowhere + ".backup": {notThere, "A3_HOME names a plane's directory"},
		"observability " + nowhere + ".rules":            {notThere, "A3_HOME names a plane's directory"},
	} {
		var out, errOut bytes.Buffer
		code := command.Run(t.Context(), strings.Fields(line), environ, &out, &errOut)
		if code != want.code || !strings.Contains(errOut.String(), want.says) || out.Len() > 0 {
			t.Errorf("fleet %s: exit code %d, %s%s\nwant %d, %s", line, code, &out, &errOut, want.code, want.says)
		}
	}
	if left, err := filepath.Glob(nowhere + "*"); err != nil || len(left) > 0 {
		t.Errorf("where there is no plane, they made %v (%v)", left, err)
	}
}

// What administrators deploy before there is a bucket, and what they deploy with no bucket named, goes in one call of CloudFormation's as it is printed, on either plane, in the
// Region with the longest name, and with names as long as they come.
func TestWhatIsDeployedByHandGoesInACall(t *testing.T) {
	const most = 51200
	digest := "sha256:" + strings.Repeat("0", 64)
	tenant := "--account 210987654321 --account-per-tenant 123456789012 --tenant " + id.NewTenant().String() + " --slug " + strings.Repeat("a", 40) + " --release 1.2.3@" + digest + " --image " + digest
	for _, plane := range []string{"dev", "prod"} {
		for name, of := range map[string]string{"first": "--account 123456789012 --first", "account": tenant + " --first", "link": tenant + " --link"} {
			line := "aws render --region ap-southeast-1 --plane " + plane + " --domain " + strings.Repeat("a", 60) + ".example " + of
			var out, errOut bytes.Buffer
			if code := command.Run(t.Context(), strings.Fields(line), nil, &out, &errOut); code != 0 || out.Len() > most || out.Len() < 1000 {
				t.Errorf("%s of %s is printed in %d bytes, a call takes %d: %d %s", name, plane, out.Len(), most, code, &errOut)
			}
		}
	}
}
