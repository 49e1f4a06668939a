"""What ssh's log is taken to say."""

from ansible_plugins.ssh_process import heard

LOGIN = '../../sshconnect2.c:488 (pid=7): Authenticated to 192.0.2.1 ([192.0.2.1]:22) using "publickey".\n'


def test_the_detail_is_ssh_s_own_last_word_and_not_what_we_did_to_it() -> None:
    log = (
        LOGIN
        + "debug1: rtype exit-signal\n../../ssh.c:9 (pid=7): something odd\nBytes per second: sent 1, received 2\n"
    )
    told = heard(log + "../../clientloop.c:1 (pid=7): Killed by signal 15.\n")
    assert (told.logged_in, told.ended, told.detail) == (True, "signal", "something odd")
    assert heard("").detail == heard(LOGIN).detail == ""


def test_of_a_refused_login_the_methods_are_left_out() -> None:
    told = heard("debug1: Remote protocol version 2.0, remote software version dropbear_2022.83\n"
                 "root@192.0.2.1: Permission denied (publickey,password).\n")  # fmt: skip
    assert (told.logged_in, told.server, told.detail) == (
        False, "dropbear_2022.83", "root@192.0.2.1: Permission denied."
    )  # fmt: skip
