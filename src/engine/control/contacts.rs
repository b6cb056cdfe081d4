//! First contact: `invite` and `accept`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::{Duration, Instant, sleep};
use zeroize::Zeroizing;

use super::dispatch::{Patience, find, parse};
use super::{Failure, FailureKind, Response, Secret};
use crate::engine::contacts::{NOTHING, USED};
use crate::engine::status::{ContactStage, ContactStatus};
use crate::engine::{Engine, Owner, fresh_write_cap};
use crate::store::{
    Acceptance, AcceptanceStage, Channel, ChannelId, Content, Invitation, InvitationStage, Role, Store, StoreError,
};

const LOOK: Duration = Duration::from_millis(100);
/// While somebody waits, the other side is looked for often: said anew after this time.
const HURRY_AGAIN: Duration = Duration::from_secs(300);

/// What a person says of an invitation.
pub(super) struct Wanted {
    pub(super) content: Content,
    pub(super) display_name: Option<String>,
    pub(super) theirs: Option<String>,
}

/// Invites with a channel, made where it is missing.
pub(super) async fn invite(owner: &Owner, store: &Store, name: &str, wanted: Wanted) -> Result<Response, Failure> {
    let parsed = parse(name)?;
    let theirs = wanted.theirs.as_deref().map(parse).transpose()?;
    if let Some(channel) = owner.store.by_name(&parsed)? {
        let unfit = |text: String| Err(Failure::new(FailureKind::Usage, text));
        if channel.role == Role::Reader {
            return unfit(format!(
                "{name:?} is read here, and an invitation is made with a channel that is written here"
            ));
        }
        if channel.content.is_drop() != wanted.content.is_drop() {
            let is = if channel.content.is_drop() { "a drop: say --drop" } else { "a stream: leave --drop out" };
            return unfit(format!("{name:?} is {is}"));
        }
        let known = owner.store.invitation(channel.id)?;
        if known.is_some_and(|known| !matches!(known.stage, InvitationStage::Wanted)) {
            let text = format!("{name:?} was invited with already, and one channel makes one invitation");
            return Err(Failure::new(FailureKind::Usage, text).hint(format!(
                "`pigeonfs invite --again {name}` shows its code and waits; `pigeonfs invite --cancel {name}` frees the \
                 name; once it is answered, `pigeonfs share {name}` gives a capability to others"
            )));
        }
        if channel.launched || channel.shown || channel.cap_elsewhere {
            let text =
                format!("{name:?} was sent or shared already, and an invitation moves a channel to other indices");
            return Err(Failure::new(FailureKind::Usage, text)
                .hint(format!("invite with a new name; or give its capability out: `pigeonfs share {name}`")));
        }
    }
    let display_name = wanted.display_name.unwrap_or_else(|| name.to_owned());
    let made = store.invite(parsed, fresh_write_cap()?, wanted.content, display_name, theirs).await;
    let id = match made {
        // Launched or shown since the look.
        Err(error @ (StoreError::AlreadyLaunched { .. } | StoreError::Invited { .. })) => {
            return Err(
                Failure::new(FailureKind::Usage, error.to_string()).hint(format!("see `pigeonfs share {name}`"))
            );
        }
        made => made?,
    };
    owner.engine.contact();
    invited(owner, id)
}

pub(super) fn invited(owner: &Owner, id: ChannelId) -> Result<Response, Failure> {
    let invitation = owner.store.invitation(id)?.ok_or(StoreError::NoChannel)?;
    Ok(Response::Contact { contact: owner.engine.invitation_status(&invitation)?, code: code(&invitation) })
}

/// The code of an invitation, once its payload is at the rendezvous.
fn code(invitation: &Invitation) -> Option<Secret> {
    match &invitation.stage {
        InvitationStage::Minted { voucher, epoch: Some(_), .. } => {
            Some(Secret::new(Zeroizing::new(STANDARD.encode(**voucher)).as_bytes().to_vec()))
        }
        _ => None,
    }
}

/// Waits for the code of an invitation, or for the answer to it.
pub(super) async fn wait_for_answer(
    owner: &Owner,
    name: &str,
    for_code: bool,
    deadline: Option<Instant>,
) -> Result<Response, Failure> {
    let channel = find(owner, name)?;
    let mut patience = Patience::new(deadline);
    let mut hurry = Instant::now();
    loop {
        let Some(invitation) = owner.store.invitation(channel.id)? else {
            let text = format!("{name:?} is not invited with; it may have been cancelled or forgotten meanwhile");
            return Err(Failure::new(FailureKind::Refused, text));
        };
        let done = match &invitation.stage {
            InvitationStage::Done { .. } => true,
            InvitationStage::Failed => return Err(failed(name, &invitation)),
            InvitationStage::Minted { epoch: Some(_), .. } => for_code,
            InvitationStage::Wanted | InvitationStage::Minted { .. } => false,
        };
        if done {
            return invited(owner, channel.id);
        }
        let trouble = invitation.trouble.clone().unwrap_or_else(|| "the other side has not answered yet".to_owned());
        patience.check(owner, &trouble)?;
        hurry = hurried(owner, hurry);
        sleep(LOOK).await;
    }
}

fn failed(name: &str, invitation: &Invitation) -> Failure {
    let text = invitation.trouble.clone().unwrap_or_default();
    Failure::new(FailureKind::Refused, format!("the invitation with {name:?} has failed: {text}"))
        .hint(format!("`pigeonfs invite --cancel {name}` frees the name"))
}

/// Nothing of a channel ever leaves whose invitation has failed: nobody waits for that.
pub(super) fn check_has_not_failed(owner: &Owner, channel: &Channel) -> Result<(), Failure> {
    match owner.store.invitation(channel.id)? {
        Some(invitation) if matches!(invitation.stage, InvitationStage::Failed) => {
            Err(failed(channel.name.as_str(), &invitation))
        }
        _ => Ok(()),
    }
}

fn hurried(owner: &Owner, hurry: Instant) -> Instant {
    if Instant::now() < hurry {
        return hurry;
    }
    owner.engine.contact();
    Instant::now() + HURRY_AGAIN
}

/// Ends an invitation, and removes its channel.
pub(super) async fn cancel(owner: &Owner, name: &str, accepting: bool) -> Result<Response, Failure> {
    if accepting {
        let parsed = parse(name)?;
        let none = || Failure::new(FailureKind::Failed, format!("no code is accepted for {name:?}"));
        let acceptance = owner.store.acceptance(&parsed)?.ok_or_else(none)?;
        owner.store.cancel_acceptance(acceptance.id).await?;
        if owner.store.acceptance(&parsed)?.is_some() {
            let text = format!("the reply for {name:?} has left, and cannot be taken back");
            return Err(Failure::new(FailureKind::Refused, text));
        }
        return Ok(Response::Done);
    }
    let channel = find(owner, name)?;
    let is_empty = channel.size == 0;
    let unsettled = owner.engine.drops().unsettled(channel.id);
    if unsettled.settling > 0 || !unsettled.unfinished.is_empty() {
        return Err(Failure::new(FailureKind::Refused, format!("files of {name:?} are being written"))
            .hint("remove them in the mount first, or let them be"));
    }
    match owner.store.cancel_invitation(channel.id).await {
        Err(StoreError::Invited { .. }) => {
            let what = if is_empty { "files".to_owned() } else { format!("{} bytes", channel.size) };
            let text = format!("{name:?} holds {what} that were not sent");
            Err(Failure::new(FailureKind::Refused, text).hint(format!(
                "`pigeonfs forget --force {name}` drops them with the invitation; in the mount they can be copied before"
            )))
        }
        cancelled => {
            cancelled?;
            // Its code is to go from the network.
            owner.engine.contact();
            Ok(Response::Done)
        }
    }
}

/// What a person says of a code.
pub(super) struct Accepting<'a> {
    pub(super) theirs: &'a str,
    pub(super) ours: &'a str,
    pub(super) content: Content,
    pub(super) code: &'a Secret,
}

/// Accepts a code, for a channel of ours, which is made where it is missing.
pub(super) async fn accept(owner: &Owner, wanted: Accepting<'_>) -> Result<Response, Failure> {
    let (theirs, ours) = (parse(wanted.theirs)?, parse(wanted.ours)?);
    let voucher = voucher(wanted.code.expose())?;
    if theirs == ours {
        return Err(Failure::new(FailureKind::Usage, "--as and --give name the same channel")
            .hint("--as names the inviter's channel, which is read here; --give one whose capability goes back"));
    }
    let of_ours = owner.store.invitations()?.into_iter().any(|invitation| match &invitation.stage {
        InvitationStage::Minted { voucher: ours, .. } => *ours == voucher,
        _ => false,
    });
    if of_ours {
        return Err(Failure::new(FailureKind::Usage, "this is the code of an invitation that was made here")
            .hint("it is for the other side"));
    }
    let is_known = owner.store.acceptance(&theirs)?.is_some_and(|known| known.voucher == voucher);
    if !is_known && owner.store.by_name(&theirs)?.is_some() {
        return Err(StoreError::NameTaken { name: theirs.to_string() }.into());
    }
    let id = match owner.store.by_name(&ours)? {
        Some(channel) => {
            if channel.role == Role::Writer && wanted.content.is_drop() && !channel.content.is_drop() {
                return Err(Failure::new(
                    FailureKind::Usage,
                    format!("{:?} is a stream: leave --drop out", wanted.ours),
                ));
            }
            channel.id
        }
        None => owner.store.create(ours, fresh_write_cap()?, wanted.content).await?,
    };
    owner.store.accept_code(theirs, id, voucher).await?;
    owner.engine.contact();
    accepted(owner, wanted.theirs)
}

fn accepted(owner: &Owner, theirs: &str) -> Result<Response, Failure> {
    let acceptance = owner.store.acceptance(&parse(theirs)?)?.ok_or(StoreError::NoChannel)?;
    Ok(Response::Contact { contact: owner.engine.acceptance_status(&acceptance)?, code: None })
}

/// Waits until a code was exchanged for a channel.
pub(super) async fn wait_for_inviter(
    owner: &Owner,
    theirs: &str,
    deadline: Option<Instant>,
) -> Result<Response, Failure> {
    let parsed = parse(theirs)?;
    let mut patience = Patience::new(deadline);
    let mut hurry = Instant::now();
    loop {
        let Some(acceptance) = owner.store.acceptance(&parsed)? else {
            let text = format!("no code is accepted for {theirs:?}; it may have been cancelled meanwhile");
            return Err(Failure::new(FailureKind::Refused, text));
        };
        match acceptance.stage {
            AcceptanceStage::Done => return accepted(owner, theirs),
            AcceptanceStage::Failed => {
                let text = acceptance.trouble.unwrap_or_default();
                let hint = if text == USED { "if it was not you, tell whoever gave you the code" } else { "" };
                let failure = Failure::new(FailureKind::Refused, text);
                return Err(if hint.is_empty() { failure } else { failure.hint(hint) });
            }
            AcceptanceStage::Looking | AcceptanceStage::Inducted { .. } => {}
        }
        let trouble = acceptance.trouble.unwrap_or_else(|| NOTHING.to_owned());
        patience.check(owner, &trouble)?;
        hurry = hurried(owner, hurry);
        sleep(LOOK).await;
    }
}

/// The 32 bytes of a code. Nothing of it comes back in an error.
pub(crate) fn voucher(text: &[u8]) -> Result<Zeroizing<[u8; 32]>, Failure> {
    let bad = |why: String| {
        Failure::new(FailureKind::Usage, format!("this is not a code: {why}"))
            .hint("a code is the one line of 44 characters that `pigeonfs invite` prints")
    };
    let is_around = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'>');
    let line: Zeroizing<Vec<u8>> = Zeroizing::new(text.iter().copied().filter(|byte| !is_around(byte)).collect());
    if line.len() != 44 {
        return Err(bad(format!("it has {} characters, and a code has 44", line.len())));
    }
    let bytes = Zeroizing::new(STANDARD.decode(&*line).map_err(|_| bad("it is not base64".to_owned()))?);
    <[u8; 32]>::try_from(&bytes[..]).map(Zeroizing::new).map_err(|_| bad("it is not of 32 bytes".to_owned()))
}

impl Engine {
    /// How an invitation stands.
    pub(crate) fn invitation_status(&self, of: &Invitation) -> Result<ContactStatus, StoreError> {
        let ours = self.store.channel(of.channel)?.ok_or(StoreError::NoChannel)?.name.to_string();
        let (stage, theirs) = match &of.stage {
            InvitationStage::Wanted | InvitationStage::Minted { epoch: None, .. } => (ContactStage::Preparing, None),
            InvitationStage::Minted { .. } => (ContactStage::Waiting, None),
            InvitationStage::Done { theirs } => (ContactStage::Done, theirs.clone()),
            InvitationStage::Failed => (ContactStage::Failed, None),
        };
        let display_name = Some(of.display_name.clone());
        Ok(ContactStatus { invites: true, ours, theirs, display_name, stage, trouble: of.trouble.clone() })
    }

    /// How a code stands.
    pub(crate) fn acceptance_status(&self, of: &Acceptance) -> Result<ContactStatus, StoreError> {
        let ours = self.store.channel(of.ours)?.ok_or(StoreError::NoChannel)?.name.to_string();
        let stage = match &of.stage {
            AcceptanceStage::Looking => ContactStage::Waiting,
            AcceptanceStage::Inducted { .. } => ContactStage::Answering,
            AcceptanceStage::Done => ContactStage::Done,
            AcceptanceStage::Failed => ContactStage::Failed,
        };
        let (theirs, display_name) = (Some(of.name.to_string()), of.display_name.clone());
        Ok(ContactStatus { invites: false, ours, theirs, display_name, stage, trouble: of.trouble.clone() })
    }

    /// All contacts that are not done.
    pub(in crate::engine) fn contacts(&self) -> Result<Vec<ContactStatus>, StoreError> {
        let mut contacts = Vec::new();
        for invitation in self.store.invitations()? {
            if !matches!(invitation.stage, InvitationStage::Done { .. }) {
                contacts.extend(self.invitation_status(&invitation).ok());
            }
        }
        for acceptance in self.store.acceptances()? {
            if !matches!(acceptance.stage, AcceptanceStage::Done) {
                contacts.extend(self.acceptance_status(&acceptance).ok());
            }
        }
        Ok(contacts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_44_characters_of_base64_however_it_was_pasted() {
        let code = STANDARD.encode([7; 32]);
        assert_eq!(code.len(), 44);
        for text in
            [code.clone(), format!("{code}\r\n"), format!("> \"{code}\""), format!("{}\n{}", &code[..20], &code[20..])]
        {
            assert_eq!(*voucher(text.as_bytes()).unwrap(), [7; 32]);
        }
        for (bad, why) in [
            ("", "0 characters"),
            (&code[..43], "43 characters"),
            (&"-".repeat(44), "not base64"),
            (&STANDARD.encode([7; 33]), "not of 32 bytes"),
        ] {
            let failure = voucher(bad.as_bytes()).unwrap_err();
            assert!(failure.kind == FailureKind::Usage && failure.message.contains(why), "{}", failure.message);
            assert!(bad.len() < 20 || !failure.message.contains(&bad[..20]));
        }
    }
}
